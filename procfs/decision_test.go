package procfs

import "testing"

func TestWhatALineDecides(t *testing.T) {
	for _, c := range []struct {
		line, platform string
		want           Decision
	}{
		{"", "hcloud", DecisionNotAsked},
		{"talos.hostname=web-1 talos.platform=aws", "hcloud", DecisionNotAsked},
		{"talos.hostname.wait=off talos.hostname=web-1", "hcloud", DecisionOff},
		{"nametag.wait=off", "", DecisionOff},
		{"talos.hostname.wait=2m talos.hostname=web-1 talos.platform=aws", "hcloud", DecisionNamed},
		{"nametag.wait ip=10.0.0.2::10.0.0.1:255.255.255.0:web-2:eth0:off", "hcloud", DecisionNamed},
		{"talos.hostname.wait=2m talos.platform=aws", "hcloud", DecisionElsewhere},
		{"talos.hostname.wait=2m talos.platform=aws", "aws", DecisionWait},
		{"talos.hostname.wait=2m talos.platform=aws", "", DecisionWait},
		{"talos.hostname.wait=2m", "hcloud", DecisionWait},
		{"talos.hostname.wait=90", "hcloud", DecisionWait},  // a mistake
		{"talos.hostname.wiat=off", "hcloud", DecisionWait}, // one too: it says nothing
		{"talos.hostname.wait=90 talos.hostname=web-1", "hcloud", DecisionNamed},
	} {
		line, _ := ParseString(c.line)
		if got := line.Decide(c.platform); got != c.want {
			t.Errorf("%q on %q: %v, want %v", c.line, c.platform, got, c.want)
		}
	}
	if (CommandLine{}).Decide("") != DecisionNotAsked || (CommandLine{Policy: Default()}).Decide("") != DecisionWait {
		t.Error("the zero line asks, or one with a policy does not")
	}
	if s := Decision(9).String(); s != "9" || DecisionElsewhere.String() != "elsewhere" {
		t.Errorf("it prints as %q", s)
	}
}
