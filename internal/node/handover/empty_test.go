//go:build linux

package handover

import (
	"testing"

	goprocfs "github.com/siderolabs/go-procfs/procfs"
)

// A boot line made from a template has "talos.hostname=" where the template's variable is empty. That names nobody, but
// it is the first, which is the one that Talos reads.
func TestAnEmptyNameOnTheLineGivesWayToOurs(t *testing.T) {
	for line, want := range map[string]string{
		"talos.hostname= quiet\n":                        "talos.hostname=my-server quiet\n",
		"a=1  talos.hostname quiet\n":                    "a=1  talos.hostname=my-server quiet\n",
		"a=talos.hostname= talos.hostname=":              "a=talos.hostname= talos.hostname=my-server\n",
		"\ttalos.hostname=\ttalos.hostname=other":        "talos.hostname=my-server\ttalos.hostname=other\n",
		"talos.hostname.wait=2m -- talos.hostname= \n":   "talos.hostname.wait=2m -- talos.hostname=my-server \n",
		"x.talos.hostname= talos.hostname=x":             "",
		"talos.hostname.x= talos.hostname.wait=talos.ho": "talos.hostname.x= talos.hostname.wait=talos.ho talos.hostname=my-server\n",
	} {
		got, err := amend(line, "my-server")
		if want == "" {
			if err == nil {
				t.Errorf("%q: the operator's name became %q", line, got)
			}
			continue
		}
		if err != nil || got != want {
			t.Errorf("%q became %q, %v", line, got, err)
			continue
		}
		if first := goprocfs.NewCmdline(got).Get(parameter).First(); first == nil || *first != "my-server" {
			t.Errorf("%q: Talos would not read the name", got)
		}
	}
}
