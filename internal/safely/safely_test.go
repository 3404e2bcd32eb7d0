package safely_test

import (
	"errors"
	"io"
	"runtime"
	"strings"
	"testing"

	"github.com/nametag-boot/nametag/internal/safely"
)

func TestDo(t *testing.T) {
	if err := safely.Do("nothing", func() error { return io.EOF }); err != io.EOF { //nolint:errorlint // the same one
		t.Errorf("an ordinary error became %v", err)
	}
	err := safely.Do("reading", func() error { panic(io.ErrUnexpectedEOF) })
	var p *safely.PanicError
	if !errors.As(err, &p) || !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Fatalf("got %v", err)
	}
	if p.Doing != "reading" || !strings.Contains(string(p.Stack), "TestDo") || strings.Contains(err.Error(), "\n") {
		t.Errorf("it does not say where: %+v", p)
	}
}

func TestAGoroutineThatPanicsTellsAndIsWaitedFor(t *testing.T) {
	for about, fn := range map[string]func(){
		"a nil pointer":    func() { var p *safely.PanicError; _ = p.Doing },
		"panic(nil)":       func() { panic(nil) }, //nolint:govet // what it is for
		"Goexit":           runtime.Goexit,
		"an out of range":  func() { _ = make([]byte, 1)[len(about(8))] },
		"a string":         func() { panic(strings.Repeat("x", 1<<20)) },
		"a deferred panic": func() { defer panic("late") },
	} {
		t.Run(about, func(t *testing.T) {
			var g safely.Group
			var err error
			g.Go("the work", fn, func(e error) { err = e })
			g.Wait()
			var p *safely.PanicError
			if !errors.As(err, &p) || len(err.Error()) > 300 {
				t.Errorf("got %.400v", err)
			}
		})
	}
	t.Run("nothing is told of one that returns, and who panics in the telling harms nobody", func(t *testing.T) {
		var g safely.Group
		g.Go("the work", func() {}, func(err error) { t.Error(err) })
		g.Go("the work", func() { panic("first") }, func(error) { panic("second") })
		g.Wait()
		done := make(chan struct{})
		safely.Go("the work", func() { panic("alone") }, func(error) { close(done) })
		<-done
	})
}

func about(n int) string { return strings.Repeat("a", n) }
