package boot

import (
	"github.com/nametag-boot/nametag/earlynet"
	"github.com/nametag-boot/nametag/identity"
	"github.com/nametag-boot/nametag/internal/node/kmsg"
	"github.com/nametag-boot/nametag/internal/node/progress"
)

// tell says an event on the console, if it changes what an operator should know. The kernel takes ten lines in five
// seconds from us: what goes well in between is left out.
func tell(console *kmsg.Console, e identity.Event) {
	if e.Kind == identity.Failed && e.Path != "" {
		e.Detail = "" // the how manieth try it was: the same line is folded, and another one is worth saying
	}
	if level, worth := levelOf(e); worth {
		console.Say(level, progress.Sentence(e))
	}
}

func levelOf(e identity.Event) (kmsg.Level, bool) {
	switch e.Kind {
	case identity.Failed, identity.UndoFailed:
		return kmsg.Warning, true
	case identity.LeftBehind: // ours to know: it goes with the worker
		return kmsg.Debug, true
	case identity.Named:
		return kmsg.Notice, true
	case identity.Link:
		return levelOfLink(e.Link)
	}
	return 0, false
}

func levelOfLink(e *earlynet.Event) (kmsg.Level, bool) {
	if e == nil {
		return 0, false
	}
	switch e.Kind {
	case earlynet.NICFound, earlynet.NICIgnored, earlynet.NICGone, earlynet.NICRenamed, earlynet.PathReady, earlynet.Kept:
		return kmsg.Notice, true
	case earlynet.CarrierLost, earlynet.Conflict, earlynet.DHCPNak, earlynet.PathFailed, earlynet.UndoFailed,
		earlynet.LinkLeftUp, earlynet.LinkBusy, earlynet.LinkSetDown, earlynet.TakenOver, earlynet.NextHop,
		earlynet.SettingFailed:
		return kmsg.Warning, true
	case earlynet.NetlinkOverrun: // ours: all is read anew
		return kmsg.Debug, true
	}
	return 0, false
}
