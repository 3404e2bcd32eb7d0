package earlynet

type lease struct{}
