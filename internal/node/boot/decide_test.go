package boot

import (
	"strings"
	"testing"

	"github.com/nametag-boot/nametag/procfs"
)

func TestDecide(t *testing.T) {
	for _, scenario := range []struct {
		name, line string
		wait       bool
		policy     string
		why        string
		mistake    bool
		talos      bool
		given      bool
		next       string
	}{
		{name: "nobody asked", line: "console=ttyS0 talos.platform=hcloud", policy: "talos.hostname.wait=off", talos: true, given: true},
		{name: "switched off", line: "talos.hostname.wait=off", policy: "talos.hostname.wait=off"},
		{name: "a bound", line: "talos.platform=hcloud talos.hostname.wait=2m,then=halt", wait: true, policy: "talos.hostname.wait=2m,then=halt", talos: true, given: true},
		{name: "no platform is given", line: "talos.hostname.wait=2m", wait: true, policy: "talos.hostname.wait=2m"},
		{name: "a mistake waits by the default policy", line: "talos.hostname.wait=90", wait: true, policy: "talos.hostname.wait=5m", mistake: true},
		{name: "a misspelt argument waits too", line: "talos.hostname.wiat=2m", wait: true, policy: "talos.hostname.wait=5m", mistake: true},
		{name: "the operator's name ends the matter", line: "talos.hostname.wait=2m talos.hostname=web-1", policy: "talos.hostname.wait=2m", why: "talos.hostname=web-1 names this node"},
		{name: "so does one in ip=", line: "talos.hostname.wait=2m ip=10.0.0.2::10.0.0.1:255.255.255.0:web-2:eth0:off", policy: "talos.hostname.wait=2m", why: "ip=web-2 names this node"},
		{name: "and another platform", line: "talos.hostname.wait=2m talos.platform=aws", policy: "talos.hostname.wait=2m", why: "talos.platform=aws is not Hetzner Cloud", talos: true},
		{name: "another next init", line: "talos.hostname.wait=2m nametag.init=/sbin/init", wait: true, policy: "talos.hostname.wait=2m", next: "/sbin/init"},
	} {
		t.Run(scenario.name, func(t *testing.T) {
			d, err := decide(scenario.line)
			if (err != nil) != scenario.mistake {
				t.Errorf("the error is %v", err)
			}
			if d.wait != scenario.wait || d.talos != scenario.talos || d.given != scenario.given || d.next != scenario.next {
				t.Errorf("the decision is %+v", d)
			}
			if got := d.policy.String(); got != scenario.policy {
				t.Errorf("the policy is %s, want %s", got, scenario.policy)
			}
			if scenario.why == "" && d.why != "" || !strings.Contains(d.why, scenario.why) {
				t.Errorf("it says %q, want %q", d.why, scenario.why)
			}
		})
	}
}

func TestNextInit(t *testing.T) {
	for _, scenario := range []struct{ name, asked, self, want string }{
		{"run by rdinit=", "", "/usr/lib/firmware/nametag/nametag", "/init"},
		{"run as /init", "", "/init", "/init.next"},
		{"another one is asked for", "/sbin/init", "/init", "/sbin/init"},
	} {
		if got := nextInit(scenario.asked, scenario.self); got != scenario.want {
			t.Errorf("%s: the next init is %s, want %s", scenario.name, got, scenario.want)
		}
	}
}

func TestTheNextInitIsCheckedBeforeAnybodyWaits(t *testing.T) {
	for _, scenario := range []struct{ name, next, says string }{
		{"it is not there", "/nowhere/init", "there is no next init"},
		{"it is a folder", "/proc", "not executable"},
		{"it is no program", "/proc/version", "not executable"},
		{"it is nametag itself", "/proc/self/exe", "nametag itself"},
	} {
		b := &boot{self: "/proc/self/exe", decision: decision{next: scenario.next, policy: procfs.Default()}}
		if err := b.checkNext(); err == nil || !strings.Contains(err.Error(), scenario.says) {
			t.Errorf("%s: %v", scenario.name, err)
		}
	}
	if err := (&boot{self: "/proc/self/exe", decision: decision{next: "/bin/sh"}}).checkNext(); err != nil {
		t.Errorf("a program: %v", err)
	}
}
