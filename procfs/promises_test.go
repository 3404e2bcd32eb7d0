package procfs

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/siderolabs/go-procfs/procfs"
)

// What the documentation promises of concurrency, contexts and zero values. Each test has the name of its sentence.

func TestNothingHereKeepsStateAndAllFunctionsMayBeCalledConcurrently(t *testing.T) {
	const line = "quiet talos.platform=hcloud talos.hostname.wait=2m,then=halt,nic=eth0,via=dhcp,known=40s"
	c := procfs.NewCmdline(line)
	policy := Policy{Mode: Bounded, Wait: 2 * time.Minute, NICs: []string{"eth0"}}
	// all is what every function says, one after the other.
	all := func() string {
		parsed, err := Parse(c)
		text, textErr := ParseString(line + " talos.hostname=given")
		slip, slipErr := ParseString("talos.hostname.wiat=2m")
		value, valueErr := ParsePolicy("90")
		then, thenErr := ParseThen("rebot")
		keep, keepErr := ParseKeep("network")
		marshalled, marshalErr := policy.MarshalText()
		var again Policy
		unmarshalErr := again.UnmarshalText(marshalled)
		patience, counts := parsed.Policy.KnownAfter()
		ctx, cancel := policy.WithDeadline(context.Background(), time.Unix(1<<40, 0))
		cancel()
		return fmt.Sprint(parsed, err, text, textErr, slip, slipErr, value, valueErr, then, thenErr, keep, keepErr,
			string(marshalled), marshalErr, again, unmarshalErr, patience, counts, ctx.Err(), policy.Value(), Default())
	}
	want := all()
	var callers sync.WaitGroup
	for range 8 {
		callers.Go(func() {
			for range 50 {
				if got := all(); got != want {
					t.Errorf("it says\n%s\nand said\n%s", got, want)
				}
			}
		})
	}
	callers.Wait()
}

func TestTheZeroPolicyIsOffAndAZeroPatienceTheDefault(t *testing.T) {
	var p Policy
	if p.Mode != Off || p.Value() != "off" {
		t.Errorf("it is %v", p)
	}
	if patience, counts := (Policy{Mode: Forever}).KnownAfter(); patience != DefaultPatience || !counts {
		t.Errorf("a known name counts after %v, %v", patience, counts)
	}
	if patience, counts := (Policy{Mode: Forever, Patience: AtOnce}).KnownAfter(); patience != 0 || !counts {
		t.Errorf("at once is after %v, %v", patience, counts)
	}
	var zero CommandLine
	if got, err := ParseString(""); err != nil || !reflect.DeepEqual(got, zero) || got.Present || got.Policy.Mode != Off {
		t.Errorf("an empty line is %+v, %v", got, err)
	}
}

func TestAPolicyWithoutABoundEndsOnlyWithItsContextOrByCancel(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, p := range []Policy{{}, {Mode: Forever}} {
			outer, end := context.WithCancel(t.Context())
			ctx, cancel := p.WithDeadline(outer, time.Now().Add(-time.Hour))
			other, release := p.WithDeadline(t.Context(), time.Now())
			time.Sleep(1000 * time.Hour)
			if ctx.Err() != nil || other.Err() != nil {
				t.Errorf("%v: it has ended by itself: %v, %v", p, ctx.Err(), other.Err())
			}
			end()
			release()
			if !errors.Is(ctx.Err(), context.Canceled) || !errors.Is(other.Err(), context.Canceled) {
				t.Errorf("%v: with its context %v, by cancel %v", p, ctx.Err(), other.Err())
			}
			cancel()
		}
	})
}

func TestAPolicyWithABoundEndsWhenItsTimeIsUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		began := time.Now()
		time.Sleep(time.Minute)
		ctx, cancel := Policy{Mode: Bounded, Wait: 2 * time.Minute}.WithDeadline(t.Context(), began)
		defer cancel()
		<-ctx.Done()
		if took := time.Since(began); took != 2*time.Minute || !errors.Is(ctx.Err(), context.DeadlineExceeded) {
			t.Errorf("after %v: %v", took, ctx.Err())
		}
	})
}
