package audit

import (
	"fmt"
	"net/netip"
	"runtime"
	"testing"
)

// large is a project of a thousand servers with five thousand nodes of theirs and others' (four in five are not of this cloud), and
// seven members.
func large() *Snapshot {
	s := &Snapshot{Taken: now, Read: map[Source]bool{Cloud: true, Etcd: true, Kubernetes: true}}
	for i := range 5000 {
		a := []netip.Addr{netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)})}
		name := fmt.Sprintf("node-%d", i)
		provider := fmt.Sprintf("hrobot://%d", i+1)
		if i < 1000 {
			provider = fmt.Sprintf("hcloud://%d", i+1)
			s.Servers = append(s.Servers, Server{ID: int64(i + 1), Name: name, Created: now.Add(-long), Addresses: a})
		}
		s.Nodes = append(s.Nodes, Node{Name: name, ProviderID: provider, Addresses: a, Created: now.Add(-long), Ready: true, ControlPlane: i < 7})
		if i < 7 {
			s.Members = append(s.Members, Member{ID: uint64(i + 1), Name: name, PeerURLs: []string{"https://" + a[0].String() + ":2380"}, Health: Healthy})
		}
	}
	return s
}

// What an audit of that size takes: 200 MiB are what a pod has. Of time nothing is asserted, the benchmark shows it.
func TestAnAuditOfFiveThousandNodesIsSmall(t *testing.T) {
	s := large()
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	r := (&Auditor{Memory: &Memory{}}).Audit(s)
	runtime.ReadMemStats(&after)
	if len(r.Findings) != 0 || len(r.Machines) != 5000 {
		t.Errorf("%d findings, %d machines", len(r.Findings), len(r.Machines))
	}
	if took := after.TotalAlloc - before.TotalAlloc; took > 50<<20 {
		t.Errorf("%d MiB were allocated", took>>20)
	}
}

func BenchmarkAudit(b *testing.B) {
	s := large()
	b.ReportAllocs()
	for b.Loop() {
		(&Auditor{Memory: &Memory{}}).Audit(s)
	}
}
