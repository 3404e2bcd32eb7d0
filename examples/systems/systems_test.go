package systems_test

import (
	"encoding/json"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"

	"github.com/coreos/butane/config"
	"github.com/coreos/butane/config/common"
	"github.com/mudler/yip/pkg/schema"
	"go.yaml.in/yaml/v3"
)

// ignition is what is looked at of an Ignition configuration.
type ignition struct {
	KernelArguments struct {
		ShouldExist []string `json:"shouldExist"`
	} `json:"kernelArguments"`
	Storage struct {
		Files, Links []struct{ Path, Target string }
	}
	Systemd struct {
		Units []struct {
			Name, Contents string
			Dropins        []struct{ Contents string }
		}
	}
}

// Butane and, through it, Ignition's own validation.
func TestButane(t *testing.T) {
	for _, name := range []string{"fedora-coreos.bu", "flatcar.bu", "fedora-coreos-sysext.bu", "flatcar-sysext.bu"} {
		text, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		out, report, err := config.TranslateBytes(text, common.TranslateBytesOptions{
			TranslateOptions: common.TranslateOptions{FilesDir: "../../systems/systemd"}, Raw: true,
		})
		if err != nil || len(report.Entries) > 0 { // --strict: warnings too
			t.Fatalf("%s: %v\n%s", name, err, report.String())
		}
		var c ignition
		if err := json.Unmarshal(out, &c); err != nil {
			t.Fatal(err)
		}
		if !slices.Contains(c.KernelArguments.ShouldExist, "nametag.wait=2m") || len(c.Systemd.Units) != 1 || len(c.Storage.Links) != 1 {
			t.Fatalf("%s: %s", name, out)
		}
		unit := c.Systemd.Units[0]
		if !strings.Contains(unit.Contents, "Before=sysinit.target") {
			t.Errorf("%s: the unit is not ours: %s", name, unit.Contents)
		}
		if to := c.Storage.Links[0].Target; to != "/etc/systemd/system/"+unit.Name {
			t.Errorf("%s: nothing starts the unit: the link leads to %s", name, to)
		}
		runs := unit.Contents + unit.Dropins[0].Contents
		want := "ExecStart=" + c.Storage.Files[0].Path + " apply --at-boot"
		if strings.HasSuffix(c.Storage.Files[0].Path, "/extensions/nametag.raw") { // what it is called in the image itself
			want = "ExecStart=/usr/bin/nametag apply --at-boot"
			if !strings.Contains(runs, "After=systemd-sysext.service") || !strings.Contains(runs, "Wants=systemd-sysext.service") {
				t.Errorf("%s: the unit may run before the extension is there", name)
			}
			if strings.Contains(runs, "\nRequires=") { // systemd carries out no FailureAction= of a unit that it did not start
				t.Errorf("%s: where another unit fails, the boot goes on without a name, whatever the policy says", name)
			}
		}
		if !strings.Contains(runs, want) {
			t.Errorf("%s: the unit has no %s", name, want)
		}
	}
}

// Kairos' stages are yip's.
func TestKairos(t *testing.T) {
	text, err := os.ReadFile("kairos.yaml")
	if err != nil {
		t.Fatal(err)
	}
	var c schema.YipConfig
	if err := yaml.Unmarshal(text, &c); err != nil {
		t.Fatal(err)
	}
	for name, stages := range c.Stages {
		for _, s := range stages {
			if s.Hostname != "" {
				t.Errorf("the stage %s sets a hostname, which would be an operator's", name)
			}
		}
	}
	if len(c.Stages["boot"]) != 1 || len(c.Stages["boot"][0].Commands) != 1 {
		t.Errorf("the stages are %+v", c.Stages)
	}
	if !strings.HasPrefix(string(text), "#cloud-config\n") || !strings.Contains(string(text), "extra_cmdline: nametag.wait=2m") {
		t.Error("it is no cloud-config that asks for a name")
	}
}

// Combustion runs a script; the shell reads it.
func TestCombustion(t *testing.T) {
	if out, err := exec.Command("bash", "-n", "combustion").CombinedOutput(); err != nil {
		t.Errorf("%v: %s", err, out)
	}
	text, err := os.ReadFile("combustion")
	if err != nil {
		t.Fatal(err)
	}
	if lines := strings.Split(string(text), "\n"); lines[1] != "# combustion: network" { // what combustion looks for
		t.Errorf("the second line is %q", lines[1])
	}
}
