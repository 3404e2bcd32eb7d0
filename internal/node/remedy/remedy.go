//go:build linux

// Package remedy says which line of the table in docs/boot.md, from console line to remedy, helps with an error.
//
// A line on the console has room for what is wrong. What can be done about it stands in the table, and the line ends in
// the address of its row. Only lines after which a person can do something have one.
package remedy

import (
	"errors"

	"golang.org/x/sys/unix"

	"github.com/nametag-boot/nametag/earlynet"
	"github.com/nametag-boot/nametag/identity"
	"github.com/nametag-boot/nametag/internal/node/kmod"
	"github.com/nametag-boot/nametag/internal/node/memory"
	"github.com/nametag-boot/nametag/procfs"
)

// A Row is one of the table, by its anchor. Somebody may have noted it: a row that is there stays.
type Row string

// The rows that lines lead to.
const (
	Argument      Row = "argument"
	Unproven      Row = "unproven"
	NextInit      Row = "next-init"
	NoNIC         Row = "no-nic"
	NoDriver      Row = "no-driver"
	ModuleRefused Row = "module-refused"
	NoAnswer      Row = "no-answer"
	AnotherServer Row = "another-server"
	NoHostName    Row = "no-host-name"
	Known         Row = "known"
	Sealed        Row = "sealed"
	Renamed       Row = "renamed"
	RenameStop    Row = "rename-stop"
	WorkerEnded   Row = "worker-ended"
	NamedItself   Row = "named-itself"
	StaysCovered  Row = "stays-covered"
	NotHandedOver Row = "not-handed-over"
	Bug           Row = "bug"
)

// See is what a line ends in: " (see boot.md#no-nic)". Of no row it is empty.
func (r Row) See() string {
	if r == "" {
		return ""
	}
	return " (see boot.md#" + string(r) + ")"
}

// Of is the row that helps with an error; empty: none does. What is surer comes first: a wait that ended without a name
// wraps all that went wrong meanwhile.
func Of(err error) Row {
	switch {
	case is[*procfs.Error](err):
		return Argument
	case is[*memory.RenamedError](err):
		return RenameStop
	case is[*identity.UnprovenError](err):
		return Unproven
	case is[*identity.MismatchError](err):
		return AnotherServer
	case is[*identity.NameError](err):
		return NoHostName
	case errors.Is(err, earlynet.ErrNoNIC):
		return NoNIC
	case is[*identity.TimeoutError](err):
		return NoAnswer
	case is[*kmod.Error](err) && (errors.Is(err, unix.EKEYREJECTED) || errors.Is(err, unix.EPERM)):
		return ModuleRefused
	case is[*kmod.NoDriverError](err):
		return NoDriver
	}
	return ""
}

func is[T error](err error) bool {
	_, ok := errors.AsType[T](err)
	return ok
}

// After is the row for what a search for a name came to; empty where there is nothing to do.
func After(v memory.Verdict) Row {
	switch v {
	case memory.TakeKnown:
		return Known
	case memory.TakeRenamed:
		return Renamed
	case memory.BootOn:
		return Sealed
	}
	return ""
}
