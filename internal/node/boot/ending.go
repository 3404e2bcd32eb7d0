//go:build linux

package boot

import (
	"context"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"github.com/nametag-boot/nametag/internal/node/handover"
	"github.com/nametag-boot/nametag/internal/node/remedy"
	"github.com/nametag-boot/nametag/procfs"
)

// An ending is what a boot comes to. [boot.run] says which one, and [boot.end] alone acts on it.
type ending struct {
	then      outcome
	name      string        // with endExec: what the handover gives to a Talos; empty: there is no name
	why       string        // with endPolicy and endStay
	countdown time.Duration // with endPolicy: before a reboot, power-off or halt
}

// An outcome is what there is to do in the end.
type outcome uint8

// The three that there are.
const (
	endExec   outcome = iota // execute the next init
	endPolicy                // do what the command line says for a boot without a name
	endStay                  // keep the machine where it is
)

// countdown is how long a reboot, power-off or halt is announced, where the wait has not counted down already.
var countdown = 3 * time.Second // a test has none

// givenUp is the ending for what went wrong before the time was up.
func givenUp(why string) ending { return ending{then: endPolicy, why: why, countdown: countdown} }

// notHandedOver is the ending where there is a name that cannot be given.
func notHandedOver(name string, err error) ending {
	return givenUp(fmt.Sprintf("the name %s cannot be handed over: %v%s", name, err, remedy.NotHandedOver.See()))
}

// end carries an ending out; where that cannot be done, the one that follows. It does not return: the last of them, to
// stay, never ends.
func (b *boot) end(e ending) {
	for {
		switch e.then {
		case endExec:
			e = b.execNext(e)
		case endPolicy:
			e = b.giveUp(e)
		case endStay:
			b.stay(e.why)
		}
	}
}

// execNext becomes the next init. It returns only if that failed, with what follows.
func (b *boot) execNext(e ending) ending {
	reached(stageLeaving)
	err := b.next.check()
	if uerr := b.leave(); uerr != nil {
		b.openConsole()
		b.console.Warnf("%v", uerr) // none of it is where the next init mounts
	}
	if err == nil {
		if rerr := b.next.putBack(); rerr != nil {
			b.openConsole()
			b.console.Warnf("%v", rerr)
		}
		if rerr := takeNull("/"); rerr != nil {
			b.openConsole()
			b.console.Warnf("%v", rerr)
		}
	}
	if err == nil && e.name != "" && b.handover != nil {
		if err := b.handover.Commit(context.Background()); err != nil {
			return notHandedOver(e.name, err) // the next init is there, and may be what the policy wants
		}
	}
	reached(stageExecuting)
	if err == nil {
		path, name := b.next.path(), b.next.name()
		err = unix.Exec(path, append([]string{name}, b.options.Args...), os.Environ())
		err = fmt.Errorf("cannot execute %s: %w; check the image", path, err)
	}
	b.endHandover()
	b.openConsole()
	if !b.decision.wait || b.decision.policy.Then == procfs.Continue {
		return ending{then: endStay, why: err.Error()} // there is nothing to go on with
	}
	return givenUp(err.Error())
}

// giveUp carries the policy out. It returns what is left to do: where that is to boot on, and where it cannot be done.
func (b *boot) giveUp(e ending) ending {
	b.openConsole()
	b.endHandover()
	if err := b.leave(); err != nil {
		b.console.Warnf("%v", err)
	}
	then := b.decision.policy.Then
	switch {
	case !b.decision.wait:
		b.console.Errorf("%s; booting on: nobody asked to wait, as far as I can tell", e.why)
		return ending{then: endExec}
	case then == procfs.Halt:
		return ending{then: endStay, why: e.why}
	}
	if err := handover.Enforce(context.Background(), then, b.console, e.countdown, e.why); err != nil {
		return ending{then: endStay, why: fmt.Sprintf("%s, and then: %v", e.why, err)}
	}
	return ending{then: endExec} // then=continue
}

// sayAgain is how often a machine that stays says why.
const sayAgain = time.Minute

// stay keeps the machine where it is, and keeps saying why. It does not return.
func (b *boot) stay(why string) {
	b.openConsole()
	for {
		b.console.Errorf("staying here since %s: %s; reset the machine when that is mended", time.Since(b.began).Round(time.Second), why)
		time.Sleep(sayAgain)
	}
}
