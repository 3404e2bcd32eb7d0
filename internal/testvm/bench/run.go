//go:build linux

package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"time"
)

// bound ends a run: a client that has no name by then has failed.
const bound = 30 * time.Second

// A run is one turn of one client.
type run struct {
	name, exit time.Duration // from the start to the name, and to the end of the process
	failed     string        // why there is no name; empty when there is one
}

// once lets a client run on a fresh node. watch, when set, gets the number of its process and is called after it has
// started; what it returns is called before the node goes. The error is the bench's own, or a wrong name: no other
// figure counts after that.
func once(ctx context.Context, c client, where condition, seed uint64, watch func(pid int) (stop func())) (r run, err error) {
	n, err := newNode(where, seed)
	if err != nil {
		return r, err
	}
	defer func() { err = errors.Join(err, n.close()) }()

	bounded, cancel := context.WithTimeout(ctx, bound)
	defer cancel()
	cmd := exec.CommandContext(bounded, c.argv[0], c.argv[1:]...)
	cmd.Env = append(os.Environ(), c.env...)
	cmd.WaitDelay = time.Second
	var complaint tail
	cmd.Stderr = &complaint
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		return r, err
	}
	began := time.Now()
	if err := n.start(cmd); err != nil {
		return r, err
	}
	if watch != nil {
		defer watch(cmd.Process.Pid)()
	}
	line, readErr := bufio.NewReader(stdout).ReadString('\n')
	r.name = time.Since(began)
	waitErr := cmd.Wait()
	r.exit = time.Since(began)
	if err := ctx.Err(); err != nil {
		return r, err
	}
	switch got := strings.TrimSuffix(line, "\n"); {
	case readErr == nil && got == hostname:
	case got != "":
		return r, fmt.Errorf("%s, %s: it said %q, which is not the name", c.name, where, got)
	case bounded.Err() != nil:
		r.failed = fmt.Sprintf("nothing after %s", bound)
	default:
		r.failed = strings.TrimSpace(fmt.Sprintf("gave up: %v %s", waitErr, complaint.String()))
	}
	return r, nil
}

// A tail keeps the end of what is written to it.
type tail struct{ b []byte }

func (t *tail) Write(p []byte) (int, error) {
	t.b = append(t.b, p...)
	if over := len(t.b) - 300; over > 0 {
		t.b = t.b[over:]
	}
	return len(p), nil
}

func (t *tail) String() string { return strings.Join(strings.Fields(string(t.b)), " ") }
