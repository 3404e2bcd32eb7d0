//go:build linux

package kmod

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
)

// Bounds on the text files of a module directory. A whole distribution's
// modules.alias has about 2 MiB, its longest line a few KiB.
const (
	longestFile = 64 << 20
	longestLine = 64 << 10
)

// eachLine calls fn with each line of r, without the space around it. The line is valid
// during the call only. Lines that are empty or begin with # are left out. It ends
// when fn returns false.
func eachLine(ctx context.Context, r io.Reader, fn func(line []byte) bool) error {
	limited := &io.LimitedReader{R: r, N: longestFile + 1}
	br := bufio.NewReaderSize(limited, longestLine)
	for n, end := 0, false; !end; n++ {
		if n%256 == 0 && ctx.Err() != nil {
			return ctx.Err()
		}
		line, err := br.ReadSlice('\n')
		end = errors.Is(err, io.EOF)
		switch {
		case errors.Is(err, bufio.ErrBufferFull):
			return fmt.Errorf("line %d is longer than %d bytes", n+1, longestLine)
		case limited.N == 0:
			return fmt.Errorf("more than %d bytes", longestFile)
		case err != nil && !end:
			return err
		}
		line = bytes.TrimSpace(line)
		if len(line) > 0 && line[0] != '#' && !fn(line) {
			return nil
		}
	}
	return nil
}
