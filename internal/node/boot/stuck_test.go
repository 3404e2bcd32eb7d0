//go:build linux

package boot

import (
	"bytes"
	"context"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/nametag-boot/nametag/internal/node/kmsg"
)

// A process does not end, not even killed, while one of its threads is in the kernel for a driver's probe.
func TestAWorkerThatDoesNotEndHoldsNobodyUp(t *testing.T) {
	within := func(t *testing.T, answer func() (result, error)) (result, error) {
		t.Helper()
		type outcome struct {
			r   result
			err error
		}
		done := make(chan outcome, 1)
		go func() {
			r, err := answer()
			done <- outcome{r, err}
		}()
		select {
		case o := <-done:
			return o.r, o.err
		case <-time.After(20 * time.Second):
			t.Fatal("the first process waits for it")
		}
		return result{}, nil
	}
	t.Run("its answer counts when it is there", func(t *testing.T) {
		b, _ := standInWorker(t, `cat >/dev/null; echo '{"Identity":{"hostname":"web-1"}}'; exec sleep 60`, time.Minute)
		answer, err := b.startWorker(request{Policy: b.decision.policy})
		if err != nil {
			t.Fatal(err)
		}
		if r, err := within(t, answer); err != nil || r.Identity == nil || r.Identity.Hostname != "web-1" {
			t.Errorf("the answer is %+v: %v", r, err)
		}
	})
	t.Run("without an answer it is given up soon after the bound", func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		forever := make(chan error)
		silent, say, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		defer silent.Close()
		defer say.Close()
		_, err = within(t, func() (result, error) { return awaitWorker(ctx, silent, forever, func(err error) { t.Error(err) }) })
		if err == nil || !strings.Contains(err.Error(), "does not end") {
			t.Errorf("the error is %v", err)
		}
	})
}

func TestADriverThatTakesLongDoesNotKeepTheOtherNICsFromBeingUsed(t *testing.T) {
	console := new(bytes.Buffer)
	w := worker{console: kmsg.New(console, kmsg.Format{Unlimited: true})}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		w.awaitDrivers(t.Context(), make(chan struct{}), 10*time.Millisecond)
	}()
	select {
	case <-ended:
	case <-time.After(20 * time.Second):
		t.Fatal("it waits for the driver")
	}
	if !strings.Contains(console.String(), "driver") {
		t.Errorf("the console says %q", console)
	}
}
