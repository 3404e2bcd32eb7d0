package earlynet

// keep makes what the attempt did last.
func (a *attempt) keep() error {
	return nil
}
