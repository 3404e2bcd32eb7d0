package procfs

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/siderolabs/go-procfs/procfs"
)

func TestWhatALineSays(t *testing.T) {
	twoMinutes := Policy{Mode: Bounded, Wait: 2 * time.Minute}
	for _, tt := range []struct {
		name, line string
		want       CommandLine
	}{
		{"an empty line", "", CommandLine{}},
		{"a line that is not about us", "console=ttyS0 init_on_alloc=1 quiet", CommandLine{}},
		{"the argument among others, and a newline", "quiet talos.hostname.wait=2m console=ttyS0\n", CommandLine{Policy: twoMinutes, Present: true}},
		{"the argument alone", "talos.hostname.wait", CommandLine{Policy: Default(), Present: true}},
		{"the argument with nothing behind the sign", "talos.hostname.wait=", CommandLine{Policy: Default(), Present: true}},
		{"an explicit off", "talos.hostname.wait=off", CommandLine{Present: true}},
		{"the first of two counts", "talos.hostname.wait=2m talos.hostname.wait=off", CommandLine{Policy: twoMinutes, Present: true}},
		{"the first of two counts, off as well", "talos.hostname.wait=off talos.hostname.wait=2m", CommandLine{Present: true}},
		{"the first of two counts even if the second is malformed", "talos.hostname.wait=2m talos.hostname.wait=90", CommandLine{Policy: twoMinutes, Present: true}},
		{"a misspelt one beside the right one is a stranger", "talos.hostname.wiat=2m talos.hostname.wait=off", CommandLine{Present: true}},
		{"the imager's negation is not the argument", "-talos.hostname.wait=2m", CommandLine{}},
		{"an argument whose name goes on", "talos.hostname.wait.longer=2m", CommandLine{}},
		{"an argument whose name begins otherwise", "my.talos.hostname.wait=2m", CommandLine{}},
		{"a platform", "talos.platform=hcloud talos.platform=metal", CommandLine{Platform: "hcloud"}},
		{"a name", "talos.hostname=web-1.example.com", CommandLine{Hostname: "web-1.example.com", HostnameFrom: "talos.hostname="}},
		{"the first of two names", "talos.hostname=a talos.hostname=b", CommandLine{Hostname: "a", HostnameFrom: "talos.hostname="}},
		{"a name that is empty is none", "talos.hostname= ip=:::::eth0:dhcp", CommandLine{}},
		{"an empty name gives way to ip=", "talos.hostname= ip=::::web-2", CommandLine{Hostname: "web-2", HostnameFrom: "ip="}},
		{"talos.hostname= before ip=", "ip=::::web-2 talos.hostname=web-1", CommandLine{Hostname: "web-1", HostnameFrom: "talos.hostname="}},
		{"field 5 of ip=", "ip=192.0.2.2::192.0.2.1:255.255.255.0:web-3:eth0:off", CommandLine{Hostname: "web-3", HostnameFrom: "ip="}},
		{"field 5 of ip= with IPv6 in brackets", "ip=[2001:db8::2]::[2001:db8::1]:[ffff:ffff::]:web-4:eth0:none", CommandLine{Hostname: "web-4", HostnameFrom: "ip="}},
		{"ip= with IPv6 and no name", "ip=[2001:db8::2]::[2001:db8::1]:[ffff:ffff::]::eth0:none", CommandLine{}},
		{"ip= with IPv6 without brackets is not understood", "ip=2001:db8::2:0:0:1", CommandLine{}},
		{"ip=dhcp", "ip=dhcp", CommandLine{}},
		{"ip=eth0:dhcp", "ip=eth0:dhcp", CommandLine{}},
		{"dracut's short form, in which a MAC follows", "ip=eth0:dhcp:1500:86:00:00:12:34:56", CommandLine{}},
		{"ip= that stops before the name", "ip=192.0.2.2::192.0.2.1:255.255.255.0", CommandLine{}},
		{"several ip=, the second has a name", "ip=dhcp ip=::::web-5:eth1:dhcp ip=::::web-6", CommandLine{Hostname: "web-5", HostnameFrom: "ip="}},
		{"a bracket that does not close", "ip=[2001:db8::2::::name", CommandLine{}},
		{"the argument by its other name", "quiet nametag.wait=2m", CommandLine{Policy: twoMinutes, Present: true}},
		{"by its other name, alone", "nametag.wait", CommandLine{Policy: Default(), Present: true}},
		{"off by its other name", "nametag.wait=off", CommandLine{Present: true}},
		{"by both names, which say the same in other words", "nametag.wait=120s talos.hostname.wait=2m", CommandLine{Policy: twoMinutes, Present: true}},
		{"the argument for the next init is none of them", "nametag.init=/sbin/init", CommandLine{}},
		{"systemd's own argument", "systemd.hostname=web-7", CommandLine{Hostname: "web-7", HostnameFrom: "systemd.hostname="}},
		{"systemd takes the last", "systemd.hostname=a systemd.hostname=b", CommandLine{Hostname: "b", HostnameFrom: "systemd.hostname="}},
		{"dracut's own argument", "hostname=web-8", CommandLine{Hostname: "web-8", HostnameFrom: "hostname="}},
		{
			"all of it", "talos.platform=hcloud talos.hostname=a talos.hostname.wait=2m",
			CommandLine{Policy: twoMinutes, Present: true, Hostname: "a", HostnameFrom: "talos.hostname=", Platform: "hcloud"},
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, err := ParseString(tt.line)
			if err != nil || !reflect.DeepEqual(got, tt.want) {
				t.Errorf("%q:\ngot  %+v, %v\nwant %+v", tt.line, got, err, tt.want)
			}
		})
	}
}

func TestALineWithAMistakeWaitsByDefault(t *testing.T) {
	for _, tt := range []struct{ name, argument, part, suggestion string }{
		{"a malformed value", "talos.hostname.wait=90", "90", "90s"},
		{"a quoted value", `talos.hostname.wait="2m"`, `"2m"`, "2m"},
		{"a misspelt name", "talos.hostname.wiat=2m", "talos.hostname.wiat", Parameter},
		{"a name in capitals", "Talos.Hostname.Wait=off", "Talos.Hostname.Wait", Parameter},
		{"a name with an underscore and no value", "talos.hostname_wait", "talos.hostname_wait", Parameter},
		{"a malformed value of the other name", "nametag.wait=90", "90", "90s"},
		{"the other name, misspelt", "nametag.wiat=2m", "nametag.wiat", Alias},
		{"the argument within itself", "nametag.wait=nametag.wait=2m", "nametag.wait=2m", "2m"},
		{"two names that differ", "talos.hostname.wait=2m nametag.wait=3m", "3m", "2m"},
		{"two names, one of which switches off", "nametag.wait=off talos.hostname.wait=2m", "off", "2m"},
		{"quotes around the whole", `"talos.hostname.wait=2m"`, `"talos.hostname.wait`, Parameter},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, err := ParseString("quiet talos.platform=hcloud " + tt.argument + " talos.hostname=a")
			want := CommandLine{Policy: Default(), Present: true, Hostname: "a", HostnameFrom: "talos.hostname=", Platform: "hcloud"}
			if !reflect.DeepEqual(got, want) {
				t.Errorf("got %+v\nwant %+v", got, want)
			}
			var e *Error
			if !errors.As(err, &e) || !strings.Contains(tt.argument, e.Argument) || e.Part != tt.part || e.Suggestion != tt.suggestion {
				t.Errorf("error %+v", err)
			}
		})
	}
}

func TestACmdlineOfGoProcfs(t *testing.T) {
	c := procfs.NewCmdline("quiet")
	c.Append(Parameter, "2m,then=halt")
	c.Append(Parameter, "off")
	got, err := Parse(c)
	if err != nil || got.Policy.Value() != "2m,then=halt" {
		t.Errorf("appended: %+v, %v", got, err)
	}
	c.Set(Parameter, procfs.NewParameter(Parameter)) // a parameter without values
	if got, err := Parse(c); err != nil || got.Present {
		t.Errorf("set to nothing: %+v, %v", got, err)
	}
}

func TestANilOrZeroCmdlineIsAnEmptyLine(t *testing.T) {
	if got, err := Parse(nil); err != nil || !reflect.DeepEqual(got, CommandLine{}) {
		t.Errorf("nil: %+v, %v", got, err)
	}
	if got, err := Parse(&procfs.Cmdline{}); err != nil || !reflect.DeepEqual(got, CommandLine{}) {
		t.Errorf("the zero value: %+v, %v", got, err)
	}
}

func TestWhereTheFileCannotBeReadTheErrorSaysWhyAndTheCommandLineIsZero(t *testing.T) {
	name := filepath.Join(t.TempDir(), "cmdline")
	if got, err := (Parser{}).readFile(name); !errors.Is(err, fs.ErrNotExist) || !reflect.DeepEqual(got, CommandLine{}) {
		t.Errorf("no file: %+v, %v", got, err)
	}
}

func TestTheFileIsReadAfreshAtEachCall(t *testing.T) {
	name := filepath.Join(t.TempDir(), "cmdline")
	for _, text := range []string{"talos.hostname.wait=2m\n", "talos.hostname.wait=3m\n"} {
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		// The second time too: machined is given another line than the first.
		if got, err := (Parser{}).readFile(name); err != nil || got.Policy.String()+"\n" != text {
			t.Errorf("%q: %+v, %v", text, got, err)
		}
	}
	if _, err := os.Stat("/proc/cmdline"); err != nil {
		t.Skip("no /proc/cmdline here")
	}
	if _, err := Read(); err != nil {
		t.Errorf("the running kernel's: %v", err)
	}
}
