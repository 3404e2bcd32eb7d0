//go:build linux

package qemu

import (
	"bufio"
	"errors"
	"net"
	"strings"
	"testing"
)

func TestTheMonitor(t *testing.T) {
	ours, theirs := net.Pipe()
	m := newMonitor(ours)
	events := make(chan string, 8)
	go m.read(func(name, reason string) { events <- name + " " + reason })

	commands := make(chan string)
	go func() { // QEMU
		in := bufio.NewReader(theirs)
		_, _ = theirs.Write([]byte(`{"QMP": {"version": {}}}` + "\n"))
		for _, answer := range []string{
			`{"timestamp": {}, "event": "RESET", "data": {"guest": true, "reason": "guest-reset"}}` + "\n" + `{"return": {}}`,
			`{"error": {"class": "GenericError", "desc": "no such bus"}}`,
		} {
			line, _ := in.ReadString('\n')
			commands <- strings.TrimSpace(line)
			_, _ = theirs.Write([]byte(answer + "\n"))
		}
		_, _ = in.ReadString('\n')
		_ = theirs.Close()
	}()

	done := make(chan error)
	t.Run("a command is answered, an event before the answer is not the answer", func(t *testing.T) {
		go func() { done <- m.do("qmp_capabilities", nil) }()
		if c := <-commands; c != `{"execute":"qmp_capabilities"}` {
			t.Errorf("sent %s", c)
		}
		if err := <-done; err != nil {
			t.Error(err)
		}
		if e := <-events; e != "RESET guest-reset" {
			t.Errorf("event %q", e)
		}
	})
	t.Run("a refusal says the command and the reason", func(t *testing.T) {
		go func() { done <- m.do("device_add", map[string]string{"bus": "x"}) }()
		<-commands
		if err := <-done; err == nil || err.Error() != "qmp: device_add: GenericError: no such bus" {
			t.Errorf("%v", err)
		}
	})
	t.Run("a QEMU that ends is told apart", func(t *testing.T) {
		if err := m.do("query-status", nil); !errors.Is(err, errMonitorGone) {
			t.Errorf("%v", err)
		}
	})
}
