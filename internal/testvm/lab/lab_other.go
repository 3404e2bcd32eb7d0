//go:build !linux

package lab

func (o Options) checkWords() error { return nil }

// Run is for Linux.
func Run(Options, []string) error { return &ExitError{StatusFailed, ErrLinux} }
