package audit

import (
	"fmt"
	"maps"
	"time"
)

// A Memory is what an auditor keeps from round to round: the first name of every server, and since when a finding is there.
// The zero value has seen nothing.
type Memory struct {
	Version int              `json:"version"`
	Servers map[int64]*First `json:"servers,omitempty"`
	// Since has, by key, when a finding was first made that is still there.
	Since map[string]time.Time `json:"since,omitempty"`
}

// MemoryVersion is the form that this package reads and writes.
const MemoryVersion = 1

// First is the name under which a server was first seen.
type First struct {
	Name string    `json:"name"`
	Seen time.Time `json:"seen"`
	// Gone is when the server was first missed. Its id is never given out again, so a long-gone one is forgotten.
	Gone *time.Time `json:"gone,omitempty"`
}

// forget is how long a server that is gone is remembered.
const forget = 30 * 24 * time.Hour

// see takes in a round: new servers are remembered, gone ones are forgotten after a while. A round that could not read the
// cloud teaches nothing.
func (m *Memory) see(s *Snapshot) {
	m.Version = MemoryVersion
	if !s.Read[Cloud] {
		return
	}
	if m.Servers == nil {
		m.Servers = map[int64]*First{}
	}
	here := map[int64]bool{}
	for _, server := range s.Servers {
		here[server.ID] = true
		first := m.Servers[server.ID]
		if first == nil {
			m.Servers[server.ID] = &First{Name: server.Name, Seen: s.Taken}
			continue
		}
		first.Gone = nil
	}
	for id, first := range m.Servers {
		switch {
		case here[id]:
		case first.Gone == nil:
			taken := s.Taken
			first.Gone = &taken
		case s.Taken.Sub(*first.Gone) > forget:
			delete(m.Servers, id)
		}
	}
}

// keep remembers since when each finding is there, and forgets those that are not there any more. A round in which a source was
// missing forgets none.
func (m *Memory) keep(taken time.Time, keys []string, incomplete bool) {
	since := make(map[string]time.Time, len(keys))
	if incomplete {
		maps.Copy(since, m.Since)
	}
	for _, key := range keys {
		since[key] = taken
		if before, ok := m.Since[key]; ok && before.Before(taken) {
			since[key] = before
		}
	}
	m.Since = since
}

// Accept takes the name that a server has now for its own, from now on. The server is named by its id or its present name.
func (m *Memory) Accept(servers []Server, which string) (Server, string, error) {
	var found []Server
	for _, s := range servers {
		if fmt.Sprint(s.ID) == which || s.Name == which {
			found = append(found, s)
		}
	}
	switch len(found) {
	case 0:
		return Server{}, "", fmt.Errorf("no server of the project has the id or the name %s", which)
	case 1:
	default:
		return Server{}, "", fmt.Errorf("%d servers are named %s: say which by its id", len(found), which)
	}
	before := ""
	if first := m.Servers[found[0].ID]; first != nil {
		before = first.Name
	}
	if m.Servers == nil {
		m.Servers = map[int64]*First{}
	}
	m.Version = MemoryVersion
	m.Servers[found[0].ID] = &First{Name: found[0].Name, Seen: time.Now().UTC()}
	return found[0], before, nil
}
