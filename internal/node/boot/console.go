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
	if level, worth := levelOf(e); worth {
		console.Say(level, progress.Sentence(e))
	}
}

func levelOf(e identity.Event) (kmsg.Level, bool) {
	switch e.Kind {
	case identity.Failed, identity.UndoFailed, identity.LeftBehind:
		return kmsg.Warning, true
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
		earlynet.LinkLeftUp, earlynet.NetlinkOverrun, earlynet.LinkBusy, earlynet.LinkSetDown, earlynet.TakenOver,
		earlynet.SettingFailed:
		return kmsg.Warning, true
	}
	return 0, false
}
