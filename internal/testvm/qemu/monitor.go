//go:build linux

package qemu

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"sync"
)

// monitor talks QMP to a QEMU: one command at a time, and the events in between.
type monitor struct {
	conn    net.Conn
	mu      sync.Mutex // one command at a time
	answers chan answer
}

type answer struct {
	Return json.RawMessage `json:"return"`
	Error  *struct {
		Class       string `json:"class"`
		Description string `json:"desc"`
	} `json:"error"`
}

var errMonitorGone = errors.New("qmp: QEMU has closed the monitor")

func newMonitor(conn net.Conn) *monitor {
	return &monitor{conn: conn, answers: make(chan answer, 1)}
}

// read reads the monitor until QEMU closes it. event is called for each event, with the reason of those that have one.
func (m *monitor) read(event func(name, reason string)) {
	defer close(m.answers)
	lines := bufio.NewReader(m.conn)
	for {
		line, err := lines.ReadBytes('\n')
		if err != nil {
			return
		}
		var message struct {
			answer
			Greeting json.RawMessage `json:"QMP"`
			Event    string          `json:"event"`
			Data     struct {
				Reason string `json:"reason"`
			} `json:"data"`
		}
		if json.Unmarshal(line, &message) != nil {
			return // not QMP: the next command fails
		}
		switch {
		case message.Event != "":
			event(message.Event, message.Data.Reason)
		case message.Greeting == nil:
			m.answers <- message.answer
		}
	}
}

// do executes one command.
func (m *monitor) do(command string, arguments any) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	b, err := json.Marshal(struct {
		Execute   string `json:"execute"`
		Arguments any    `json:"arguments,omitempty"`
	}{command, arguments})
	if err != nil {
		return err
	}
	if _, err := m.conn.Write(append(b, '\n')); err != nil {
		return errMonitorGone
	}
	a, ok := <-m.answers
	if !ok {
		return errMonitorGone
	}
	if a.Error != nil {
		return fmt.Errorf("qmp: %s: %s: %s", command, a.Error.Class, a.Error.Description)
	}
	return nil
}
