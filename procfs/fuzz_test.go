package procfs

import (
	"errors"
	"reflect"
	"strings"
	"testing"
	"time"
)

// Off may only come from a value that says so.
func saysOff(value string) bool {
	head, _, _ := strings.Cut(value, ",")
	return head == "0" || head == "off" || head == "false" || head == "no"
}

func FuzzParsePolicy(f *testing.F) {
	for _, s := range []string{"", "1", "off", "90", "2m,then=halt", "forever,nic=eth0,nic=86:00:00:12:34:56", "1h30", "-1s", "off,", `"2m"`, "2m,nic=[", "9e9h", "1d,keep=", "2m,via=dhcp,via=ipv6,keep=network", "2m,known=0s,rename=stop", "2m,known=strict", "2m,known=-0"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, value string) {
		p, err := ParsePolicy(value)
		if err != nil {
			var e *Error
			if !errors.As(err, &e) || e.Reason == "" || e.Argument != Parameter+"="+value {
				t.Fatalf("%q: not a whole *Error: %#v", value, err)
			}
			if !reflect.DeepEqual(p, Default()) {
				t.Fatalf("%q: %v, but the policy is %+v", value, err, p)
			}
			if len(err.Error()) > 3000 || strings.ContainsAny(err.Error(), "\x00\x1b\n\r") {
				t.Fatalf("%q: not fit for a console: %q", value, err)
			}
			return
		}
		if (p.Mode == Off) != saysOff(value) {
			t.Fatalf("%q is %v", value, p.Mode)
		}
		if p.Mode == Bounded && (p.Wait < shortestWait || p.Wait > longestWait) {
			t.Fatalf("%q waits %v", value, p.Wait)
		}
		again, err := ParsePolicy(p.Value())
		if err != nil || !reflect.DeepEqual(again, p) {
			t.Fatalf("%q is %+v, prints as %q, which is %+v, %v", value, p, p.Value(), again, err)
		}
		line, err := ParseString("a=b " + p.String() + " c")
		if err != nil || !reflect.DeepEqual(line, CommandLine{Policy: p, Present: true}) {
			t.Fatalf("%q on a line is %+v, %v", p, line, err)
		}
		if text, err := p.MarshalText(); err != nil || string(text) != p.String() {
			t.Fatalf("%q marshals as %q, %v", p, text, err)
		}
	})
}

func FuzzPolicyRoundTrip(f *testing.F) {
	f.Add(uint8(1), int64(time.Minute), uint8(2), "eth0", "dhcp", uint8(1), uint8(0), int64(time.Second), uint8(1), uint8(1))
	f.Add(uint8(0), int64(-1), uint8(9), "eth0,then=halt", "", uint8(0), uint8(2), int64(-1), uint8(0), uint8(0))
	f.Fuzz(func(t *testing.T, mode uint8, wait int64, then uint8, nic, via string, keep, known uint8, patience int64, rename, id uint8) {
		p := Policy{Mode: Mode(mode), Then: Then(then), Keep: Keep(keep), Known: Known(known), Patience: time.Duration(patience), Rename: Rename(rename), ID: ID(id)}
		if p.Mode == Bounded {
			p.Wait = time.Duration(wait)
		}
		if nic != "" {
			p.NICs = []string{nic}
		}
		if via != "" {
			p.Via = []string{via}
		}
		text, err := p.MarshalText()
		if err != nil {
			return // no argument makes it
		}
		var got Policy
		if err := got.UnmarshalText(text); err != nil {
			t.Fatalf("%+v marshals as %q: %v", p, text, err)
		}
		if mac, err := parseNIC(nic); err == nil && nic != "" {
			p.NICs = []string{mac}
		}
		if !reflect.DeepEqual(got, p) {
			t.Fatalf("%+v marshals as %q, which is %+v", p, text, got)
		}
	})
}

func FuzzParseString(f *testing.F) {
	for _, s := range []string{
		"", "talos.hostname.wait", "talos.hostname.wait=2m talos.hostname.wait=off", "ip=[::1]::::a ip=dhcp", "ip=eth0:dhcp:1500:86:00:00:12:34:56",
		`"talos.hostname.wait=off"`, "talos.hostname.wiat=off", "talos.hostname=a.b talos.platform=hcloud\n", "=x = ==", "nametag.wait=off talos.hostname.wait=off", "nametag.wiat",
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		line, err := ParseString(s)
		if err != nil && (line.Policy.Mode != Bounded || !line.Present) {
			t.Fatalf("%q: %v, but %+v", s, err, line)
		}
		if err == nil && line.Present && line.Policy.Mode == Off && !strings.Contains(s, Parameter+"=") && !strings.Contains(s, Alias+"=") {
			t.Fatalf("%q is off", s)
		}
		if !line.Present && !reflect.DeepEqual(line.Policy, Policy{}) {
			t.Fatalf("%q has no argument and the policy %+v", s, line.Policy)
		}
		if (line.Hostname == "") != (line.HostnameFrom == "") {
			t.Fatalf("%q: name %q from %q", s, line.Hostname, line.HostnameFrom)
		}
	})
}
