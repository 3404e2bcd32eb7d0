//go:build linux

package boot

import (
	"log/slog"

	"github.com/nametag-boot/nametag/earlynet"
	"github.com/nametag-boot/nametag/identity"
	"github.com/nametag-boot/nametag/internal/node/kmsg"
	"github.com/nametag-boot/nametag/internal/node/remedy"
)

// tell says an event on the console, if it changes what an operator should know. The kernel takes ten lines in five
// seconds from us: what goes well in between is left out.
func tell(console *kmsg.Console, e identity.Event) {
	e.Try = 0 // with its number each try would be a line of its own; without, what repeats itself is folded
	if level, worth := levelOf(e); worth {
		console.Say(level, e.Sentence()+remedy.Of(e.Err).See())
	}
}

func levelOf(e identity.Event) (kmsg.Level, bool) {
	switch level := e.Level(); {
	case level >= slog.LevelWarn:
		return kmsg.Warning, true
	case level >= slog.LevelInfo:
		return kmsg.Notice, true
	case e.Kind == identity.EventLeftBehind, e.Link != nil && e.Link.Kind == earlynet.NetlinkOverrun: // ours to know
		return kmsg.Debug, true
	}
	return 0, false
}
