//go:build linux

package boot

import (
	"strings"
	"testing"
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
			if d.wait != scenario.wait || d.talos != scenario.talos || d.onHetzner != scenario.given || d.next != scenario.next {
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
