// Package safely runs what must not take the process with it. On a node the process may be the first one, and its end is
// the machine's: there a panic, whoever caused it, is an error like any other, and the policy decides what comes of it.
//
// Everything that touches the network, a file that somebody else wrote or a caller's callback runs under [Do], or in a
// goroutine that [Go] or a [Group] has started. A fault that Go does not let anybody recover from (a stack overflow, a
// concurrent map write) still ends the process.
package safely

import (
	"fmt"
	"runtime/debug"
	"sync"
)

// A PanicError is a panic that was caught.
type PanicError struct {
	Doing string // what was being done: "DHCP on eth0"
	Value any    // what panic was called with; nil where the goroutine was ended by [runtime.Goexit]
	Stack []byte // where, as [debug.Stack] prints it
}

// Error is one line, without the stack.
func (e *PanicError) Error() string {
	if e.Value == nil {
		return "the goroutine was ended in mid-work: " + e.Doing
	}
	return fmt.Sprintf("panic: %s: %.200v", e.Doing, e.Value)
}

// Unwrap returns the value of the panic where that is an error.
func (e *PanicError) Unwrap() error {
	err, _ := e.Value.(error)
	return err
}

// Do calls fn. Where fn panics, the error is a [*PanicError].
func Do(doing string, fn func() error) (err error) {
	defer func() {
		if v := recover(); v != nil {
			err = &PanicError{Doing: doing, Value: v, Stack: debug.Stack()}
		}
	}()
	return fn()
}

// Go starts fn in a goroutine of its own. Where fn panics or calls [runtime.Goexit], died is called in that goroutine with
// a [*PanicError], after fn's own deferred functions.
func Go(doing string, fn func(), died func(error)) {
	go run(doing, fn, died)
}

func run(doing string, fn func(), died func(error)) {
	returned := false
	defer func() {
		if returned {
			return
		}
		err := &PanicError{Doing: doing, Value: recover()}
		if err.Value != nil {
			err.Stack = debug.Stack()
		}
		// Of a panic in died nobody is told: there is nobody else to tell.
		_ = Do(doing, func() error { died(err); return nil })
	}()
	fn()
	returned = true
}

// A Group is goroutines that are waited for together, as a [sync.WaitGroup]. The zero value has none.
type Group struct{ wg sync.WaitGroup }

// Go is [Go], and Wait waits for the end of fn and died.
func (g *Group) Go(doing string, fn func(), died func(error)) {
	g.wg.Add(1)
	go func() {
		defer g.wg.Done()
		run(doing, fn, died)
	}()
}

// Wait waits until every goroutine of the group has ended.
func (g *Group) Wait() { g.wg.Wait() }
