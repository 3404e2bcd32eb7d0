//go:build linux

package boot_test

import (
	"cmp"
	"encoding/json"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/nametag-boot/nametag/internal/node/record"
	"github.com/nametag-boot/nametag/internal/testvm/cloud"
	"github.com/nametag-boot/nametag/internal/testvm/helpertest"
	"github.com/nametag-boot/nametag/internal/testvm/qemu"
	"github.com/nametag-boot/nametag/internal/testvm/qemu/report"
	"github.com/nametag-boot/nametag/internal/testvm/talos"
)

const server = "example-controlplane-3d3d26d1-69c5k"

// boot boots a machine with the helper in front. Its notices show on the console.
func boot(t *testing.T, s qemu.Scenario) *qemu.Verdict {
	t.Helper()
	if s.Helper == "" {
		s.Helper = helpertest.Binary(t, string(cmp.Or(s.Arch, qemu.AMD64)))
	}
	s.Args = append(slices.Clone(s.Args), "loglevel=6", "printk.devkmsg=on")
	if s.OS == nil {
		s.OS = talos.OS{}
	}
	if s.Cloud.Server.Hostname == "" {
		s.Cloud.Server.Hostname = server
	}
	if s.Clock == "" {
		s.Clock = report.First
	}
	if s.Timeout == 0 {
		s.Timeout = 3 * time.Minute // an emulated processor that others starve has taken more than one
	}
	return qemu.Boot(t, s)
}

// onlyEver checks the promise: one name, from the first on, and the services' too.
func onlyEver(t *testing.T, v *qemu.Verdict, name string) {
	t.Helper()
	if names := v.Names(); len(names) != 1 || names[0] != name {
		t.Errorf("the node was called %q, not %s alone", names, name)
	}
	if v.Service() != name {
		t.Errorf("services started as %q, not as %s", v.Service(), name)
	}
}

// noTrace checks that nothing of the helper is left in the end.
func noTrace(t *testing.T, v *qemu.Verdict) {
	t.Helper()
	if first := v.State(report.Started); first != nil {
		if len(first.Links) > 0 && slices.ContainsFunc(first.Links, func(l string) bool { return strings.HasSuffix(l, " up") }) || len(first.Addresses)+len(first.Routes) > 0 {
			t.Errorf("the next init finds a network: %v", first)
		}
	}
	end := v.State(report.Settled)
	if end == nil {
		t.Error("the boot did not settle")
		return
	}
	if len(end.Processes) > 0 || len(end.Tracers) > 0 {
		t.Errorf("processes or tracers are left: %v", end)
	}
	if slices.ContainsFunc(end.Mounts, func(m string) bool { return strings.Contains(m, "cmdline") || strings.Contains(m, "nametag") }) {
		t.Errorf("a mount is left: %q", end.Mounts)
	}
	if strings.Contains(end.CommandLine, "talos.hostname=") {
		t.Errorf("the command line still has the name: %q", end.CommandLine)
	}
	if proc, _ := v.First(report.ProcFS); proc.Text != "ok" {
		t.Errorf("mounting proc in a new user namespace: %q", proc.Text)
	}
}

func says(t *testing.T, v *qemu.Verdict, texts ...string) {
	t.Helper()
	for _, text := range texts {
		if !v.Said(text) {
			t.Errorf("the console does not say %q", text)
		}
	}
}

// until is a phase of the metadata's schedule.
func until(d time.Duration, b cloud.Behaviour) []cloud.Phase {
	return []cloud.Phase{{Until: d, Answer: b}}
}

// The cure: the bug's own boot, with the helper in front.
func TestWithTheHelperEtcdJoinsUnderTheServersName(t *testing.T) {
	t.Parallel()
	for _, line := range []talos.Line{talos.V1_9, talos.V1_12} {
		t.Run(fmt.Sprintf("line %d", line), func(t *testing.T) {
			t.Parallel()
			v := boot(t, qemu.Scenario{
				OS:    talos.OS{Line: line, Etcd: true},
				Args:  []string{"talos.hostname.wait=2m"},
				Cloud: cloud.Config{Metadata: until(2*time.Second, cloud.Unreachable())},
			})
			onlyEver(t, v, server)
			noTrace(t, v)
			if v.Member() != server {
				t.Errorf("etcd's member is %q, not %s", v.Member(), server)
			}
		})
	}
}

func TestTheNameComesHoweverTheMetadataServiceBegins(t *testing.T) {
	t.Parallel()
	// By the number of requests where that can be: the first one comes when the machine is as far, and not by the clock. It
	// is one number for all paths: what the system that boots next asks for by another one is right by then. It is more than
	// an attempt or two send: on a busy machine the answers to hedged requests may come too late to be told of.
	const soon = 8 * time.Second
	atFirst := func(b cloud.Behaviour) []cloud.Phase {
		return until(time.Hour, cloud.OnName(cloud.First(12, b)))
	}
	for _, scenario := range []struct {
		name   string
		phases []cloud.Phase
		says   string
	}{
		{"late by 20 s", until(20*time.Second, cloud.Unreachable()), "no answer"},
		{"connections refused", until(soon, cloud.Refused()), "connection refused"},
		{"503", atFirst(cloud.Status(503)), "503"},
		{"204", atFirst(cloud.Status(204)), "204"},
		{"an empty body", atFirst(cloud.Body("")), "empty"},
		{"a page in HTML", atFirst(cloud.Body("<html><body>Bad Gateway</body></html>")), "HTML"},
		{"a name that is none", atFirst(cloud.Body("my_server")), "my_server"},
		{"another server's instance id", until(soon, cloud.Other(cloud.Server{Hostname: "somebody-else", InstanceID: "13"})), `instance "13"`},
	} {
		t.Run(scenario.name, func(t *testing.T) {
			t.Parallel()
			v := boot(t, qemu.Scenario{
				Args:  []string{"talos.hostname.wait=2m"},
				Cloud: cloud.Config{Metadata: scenario.phases},
			})
			onlyEver(t, v, server)
			noTrace(t, v)
			says(t, v, scenario.says)
		})
	}
}

func TestWhenTheTimeIsUpThePolicyIsCarriedOut(t *testing.T) {
	t.Parallel()
	for _, scenario := range []struct {
		then    string
		outcome qemu.Outcome
		cloud   cloud.Behaviour
		until   func(*qemu.Verdict) bool
		says    string
	}{
		{"reboot", qemu.Reset, cloud.Refused(), nil, "no name yet: reboot"},
		{"poweroff", qemu.PoweredOff, cloud.Refused(), nil, "no name yet: poweroff"},
		{"halt", qemu.Running, cloud.Refused(), func(v *qemu.Verdict) bool { return v.Said("staying here") }, "); reset the machine when that is mended"},
		// The one that boots on needs its machine configuration, from the same service.
		{"continue", qemu.Running, cloud.OnName(cloud.Status(503)), func(v *qemu.Verdict) bool { return v.Service() != "" }, "booting on without the name"},
	} {
		t.Run(scenario.then, func(t *testing.T) {
			t.Parallel()
			v := boot(t, qemu.Scenario{
				Args:  []string{"talos.hostname.wait=4s,then=" + scenario.then},
				Cloud: cloud.Config{Metadata: until(time.Hour, scenario.cloud)},
				Until: scenario.until,
			})
			if v.Outcome != scenario.outcome {
				t.Errorf("the boot ended: %v, want %v", v.Outcome, scenario.outcome)
			}
			says(t, v, scenario.says, "no valid name from hetzner")
			names := v.Names()
			switch {
			case scenario.then != "continue" && len(names) > 0:
				t.Errorf("the node was called %q", names)
			case scenario.then == "continue" && (len(names) == 0 || !strings.HasPrefix(names[0], "talos-")):
				t.Errorf("the node was called %q, not first talos-…: the OS names itself", names)
			}
		})
	}
}

// asked says whether the helper has sent a request.
func asked(v *qemu.Verdict) bool {
	return slices.ContainsFunc(v.Requests, func(r cloud.Request) bool {
		return strings.HasPrefix(r.Header.Get("User-Agent"), "nametag")
	})
}

func TestWhereThereIsNothingToFindOutTheBootGoesOnAtOnce(t *testing.T) {
	t.Parallel()
	for _, scenario := range []struct {
		name   string
		os     talos.OS
		vendor string
		args   []string
		called string // a prefix of the first name
		says   string // in one line; empty: nothing at all
	}{
		{"the operator has named the node", talos.OS{}, "", []string{"talos.hostname.wait=2m", "talos.hostname=by-hand"}, "by-hand", "talos.hostname=by-hand names this node"},
		{"another platform", talos.OS{Platform: "metal"}, "", []string{"talos.hostname.wait=2m"}, "talos-", "talos.platform=metal is not Hetzner Cloud"},
		{"another vendor's machine", talos.OS{Platform: "-"}, "QEMU", []string{"talos.hostname.wait=2m"}, "talos-", `its DMI vendor is "QEMU"`},
		{"no argument", talos.OS{}, "", nil, "talos-", ""},
		{"off", talos.OS{}, "", []string{"talos.hostname.wait=off"}, "talos-", ""},
	} {
		t.Run(scenario.name, func(t *testing.T) {
			t.Parallel()
			v := boot(t, qemu.Scenario{
				OS: scenario.os, Vendor: scenario.vendor, Args: scenario.args,
				// So that the OS, which asks too, does not have the name from there before it has made one up.
				Cloud: cloud.Config{Metadata: []cloud.Phase{{Until: time.Hour, Answer: cloud.OnName(cloud.Status(503))}}},
				Until: func(v *qemu.Verdict) bool { return v.Service() != "" },
			})
			if names := v.Names(); len(names) == 0 || !strings.HasPrefix(names[0], scenario.called) {
				t.Errorf("the node was called %q, not first %s…", names, scenario.called)
			}
			if asked(v) {
				t.Error("the metadata service was asked")
			}
			if scenario.says != "" {
				says(t, v, scenario.says)
			} else if v.Said("nametag") {
				t.Error("the console speaks of nametag")
			}
		})
	}
}

func TestAMalformedArgumentIsToldAndWaitsByTheDefaultPolicy(t *testing.T) {
	t.Parallel()
	v := boot(t, qemu.Scenario{Args: []string{"talos.hostname.wait=90"}})
	onlyEver(t, v, server)
	says(t, v, "did you mean 90s?", "talos.hostname.wait=5m")
}

func TestTheNetworkCards(t *testing.T) {
	t.Parallel()
	t.Run("none at all: the policy, and the reason", func(t *testing.T) {
		t.Parallel()
		v := boot(t, qemu.Scenario{NICs: []qemu.NIC{}, Args: []string{"talos.hostname.wait=3s,then=poweroff"}})
		if v.Outcome != qemu.PoweredOff {
			t.Errorf("the boot ended: %v", v.Outcome)
		}
		says(t, v, "no usable NIC")
	})
	t.Run("one that is plugged in after 5 s", func(t *testing.T) {
		t.Parallel()
		v := boot(t, qemu.Scenario{
			NICs: []qemu.NIC{{After: 5 * time.Second}},
			Args: []string{"talos.hostname.wait=2m"},
		})
		onlyEver(t, v, server)
		noTrace(t, v)
	})
	t.Run("two, of which one is dead", func(t *testing.T) {
		t.Parallel()
		v := boot(t, qemu.Scenario{
			NICs: []qemu.NIC{{NIC: cloud.NIC{Shape: cloud.Dead}}, {}},
			Args: []string{"talos.hostname.wait=2m"},
		})
		onlyEver(t, v, server)
		noTrace(t, v)
	})
	t.Run("a private network alone", func(t *testing.T) {
		t.Parallel()
		v := boot(t, qemu.Scenario{
			NICs: []qemu.NIC{{NIC: cloud.NIC{Shape: cloud.Private}}},
			Args: []string{"talos.hostname.wait=2m"},
		})
		onlyEver(t, v, server)
		noTrace(t, v)
	})

	// The other shapes of server, before an OS that keeps what it is given: a shorter boot.
	public, private, dead := qemu.NIC{}, qemu.NIC{NIC: cloud.NIC{Shape: cloud.Private}}, qemu.NIC{NIC: cloud.NIC{Shape: cloud.Dead}}
	for _, scenario := range []struct {
		name  string
		nics  []qemu.NIC
		os    talos.Plain
		cloud cloud.Config
		keys  string
		says  string
	}{
		{name: "a server without IPv4", nics: []qemu.NIC{{NIC: cloud.NIC{Shape: cloud.IPv6Only}}}, says: "by eth0/linklocal"},
		{name: "the service at its IPv6 address alone", nics: []qemu.NIC{public}, cloud: cloud.Config{IPv6: true}, keys: ",via=ipv6", says: "by eth0/ipv6"},
		{name: "eight, of which one works", nics: []qemu.NIC{dead, dead, dead, dead, dead, public, dead, dead}, says: "by eth5/"},
		{
			name: "public and private, with the route to the service that leads nowhere", keys: ",via=dhcp",
			nics: []qemu.NIC{{NIC: cloud.NIC{Shape: cloud.Private, BlackHole: true}}, public}, says: "by eth1/dhcp",
		},
		{name: "a private network that is attached after 5 s", nics: []qemu.NIC{{NIC: private.NIC, After: 5 * time.Second}}, says: "by eth0/dhcp"},
		{name: "one whose cable is put in after 8 s", nics: []qemu.NIC{{Cable: 8 * time.Second}}, says: "by eth0/"},
		{
			name: "beside a bond, a dummy, two queues and two tunnels", nics: []qemu.NIC{public},
			os: talos.Plain{BuiltIn: []string{"bonding", "dummy", "ifb", "sit", "ipip"}}, says: "by eth0/",
		},
	} {
		t.Run(scenario.name, func(t *testing.T) {
			t.Parallel()
			v := boot(t, qemu.Scenario{OS: scenario.os, NICs: scenario.nics, Cloud: scenario.cloud, Args: []string{"talos.hostname.wait=2m" + scenario.keys}})
			plain(t, v)
			says(t, v, scenario.says)
			if others := len(scenario.os.BuiltIn); others > 0 && len(v.State(report.Started).Links) <= others {
				t.Errorf("there are only %q", v.State(report.Started).Links)
			}
			if cable := scenario.nics[0].Cable; len(v.Requests) == 0 || v.Requests[0].At < cable {
				t.Errorf("the cable came after %v, the requests are %v", cable, v.Requests)
			}
		})
	}
}

func TestAMachineWithoutRandomNumbersDoesNotHang(t *testing.T) {
	t.Parallel()
	v := boot(t, qemu.Scenario{NoRDRAND: true, Args: []string{"talos.hostname.wait=2m"}})
	onlyEver(t, v, server)
	noTrace(t, v)
}

// An OS that is not Talos takes the kernel's hostname, or reads the record.
func TestAnOSThatIsNotTalosFindsHostnameAndRecord(t *testing.T) {
	t.Parallel()
	const name = "web-1.example.com"
	v := boot(t, qemu.Scenario{
		OS:    talos.Plain{},
		Args:  []string{"talos.hostname.wait=2m"},
		Cloud: cloud.Config{Server: cloud.Server{Hostname: name, InstanceID: "4711"}},
	})
	found := v.State(report.Started)
	if found == nil {
		t.Fatal("it did not start")
	}
	if found.Hostname != name {
		t.Errorf("the kernel's hostname is %q", found.Hostname)
	}
	var r record.Record
	if err := json.Unmarshal([]byte(found.Record), &r); err != nil {
		t.Fatalf("the record: %v: %q", err, found.Record)
	}
	if r.Schema != record.Schema || r.Hostname != name || r.ShortName != "web-1" || r.InstanceID != "4711" {
		t.Errorf("the record is %s", found.Record)
	}
	if r.ElapsedMS <= 0 {
		t.Errorf("the record says that the name took %v ms", r.ElapsedMS)
	}
	if len(found.Addresses) > 0 || len(found.Processes) > 0 {
		t.Errorf("something is left: %v", found)
	}
}

// The handover where it is hard. Each of these boots a Talos whose /init refuses to go on while it is traced.
func TestTheHandoverHoldsWhereItIsHard(t *testing.T) {
	t.Parallel()
	for _, scenario := range []struct {
		name  string
		way   qemu.Way
		line  talos.Line
		files qemu.Files
		args  []string
		says  string
	}{
		{name: "nametag as /init, mount(2)", way: qemu.AsInit, line: talos.V1_9, says: "strict"},
		{name: "nametag as /init, move_mount(2)", way: qemu.AsInit, line: talos.V1_12, says: "strict"},
		{name: "nametag by rdinit, move_mount(2)", way: qemu.RDInit, line: talos.V1_12, says: "strict"},
		{name: "yama refuses every tracer, mount(2)", line: talos.V1_9, args: []string{"sysctl.kernel.yama.ptrace_scope=3"}, says: "watch"},
	} {
		t.Run(scenario.name, func(t *testing.T) {
			t.Parallel()
			v := boot(t, qemu.Scenario{
				OS: talos.OS{Line: scenario.line}, Way: scenario.way, Files: scenario.files,
				Args: append([]string{"talos.hostname.wait=2m"}, scenario.args...),
			})
			onlyEver(t, v, server)
			noTrace(t, v)
			says(t, v, scenario.says)
		})
	}
}

// Boots in a row, all with the right name from the first on. NAMETAG_STRESS says how many of each way; see make stress.
func TestStress(t *testing.T) {
	t.Parallel()
	n := 10
	if s := os.Getenv("NAMETAG_STRESS"); s != "" {
		var err error
		if n, err = strconv.Atoi(s); err != nil {
			t.Fatal(err)
		}
	} else if testing.Short() {
		t.Skip("skipped: -short")
	}
	for i := range n {
		for _, way := range []struct {
			name string
			args []string
		}{
			{name: "strict"},
			{"watch", []string{"sysctl.kernel.yama.ptrace_scope=3"}},
		} {
			t.Run(fmt.Sprintf("%s %d", way.name, i), func(t *testing.T) {
				t.Parallel()
				v := boot(t, qemu.Scenario{
					OS:   talos.OS{Line: talos.Line(i % 2)},
					Way:  qemu.Way(i / 2 % 2),
					Args: append([]string{"talos.hostname.wait=2m"}, way.args...),
				})
				onlyEver(t, v, server)
				noTrace(t, v)
				says(t, v, "("+way.name+")")
			})
		}
	}
}

// Nothing is lost on the way: the next init gets what the kernel gave.
func TestTheNextInitGetsArgumentsAndEnvironment(t *testing.T) {
	t.Parallel()
	v := boot(t, qemu.Scenario{Args: []string{"version", "talos.hostname.wait=2m", "a_word", "some_key=some_value"}})
	found := v.State(report.Started)
	if found == nil {
		t.Fatal("the next init did not start")
	}
	// "version" is a command of ours, but not for the kernel's first process.
	if !slices.Contains(found.Args, "version") || !slices.Contains(found.Args, "a_word") || found.Args[0] != "/init" {
		t.Errorf("its arguments are %q", found.Args)
	}
	if !slices.Contains(found.Env, "some_key=some_value") {
		t.Errorf("its environment is %q", found.Env)
	}
}
