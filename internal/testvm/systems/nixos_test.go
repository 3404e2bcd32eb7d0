//go:build linux

package systems

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/nametag-boot/nametag/internal/testvm/helpertest"
	"github.com/nametag-boot/nametag/internal/testvm/qemu"
)

// nixos is what the module makes of a configuration, as far as it is looked at.
type nixos struct {
	Assertions []struct{ Assertion bool }
	Boot       struct{ KernelParams []string }
	Networking struct{ HostName string }
	Systemd    struct {
		Packages   []string
		Generators map[string]string
	}
}

// moduleOf stands in for the little of nixpkgs' lib that the module uses, and evaluates it by Nix itself.
const moduleOf = `{ enable, hostName }:
let
  lib = {
    mkIf = condition: value: if condition then value else { };
    mkOption = option: option;
    mkEnableOption = description: { default = false; };
    mkDefault = value: value;
    types = { package = "package"; str = "str"; };
  };
  pkgs.callPackage = file: overrides: "/nix/store/nametag";
  module = import MODULE;
  options = (module { inherit lib pkgs; config = { }; }).options.services.nametag;
  config = {
    services.nametag = { inherit enable; package = options.package.default; wait = options.wait.default; };
    networking = { inherit hostName; };
  };
in
(module { inherit config lib pkgs; }).config
`

// packageOf gives the package's derivation before anything is built.
const packageOf = `import PACKAGE { stdenvNoCC.mkDerivation = derivation: derivation; fetchurl = source: source; dpkg = "dpkg"; }`

// evaluate has Nix evaluate an expression.
func evaluate(t *testing.T, into any, expression string, args ...string) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "nix-instantiate", append([]string{"--eval", "--strict", "--json", "--expr", expression}, args...)...)
	home := t.TempDir() // no store is needed, and none of this machine's is used
	cmd.Env = append(os.Environ(), "HOME="+home, "NIX_STATE_DIR="+home, "NIX_STORE_DIR="+home+"/store", "NIX_CONFIG=build-users-group =")
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("nix-instantiate: %v\n%s", err, stderr(err))
	}
	if err := json.Unmarshal(out, into); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
}

// There is no nixpkgs here: Nix evaluates the module with a stand-in for its lib, and the steps that make the package
// are run, by bash, on the package that it takes apart.
func TestNixOS(t *testing.T) {
	if os.Getenv(wanted) == "" {
		t.Skip("this needs Nix: make test-os runs it")
	}
	deps := qemu.Need(t, qemu.AMD64)
	base(t, deps) // hack/os-deps installs Nix
	at := filepath.Join(deps.Repo, "examples/systems/nixos")
	expression := strings.ReplaceAll(moduleOf, "MODULE", filepath.Join(at, "module.nix"))

	var c nixos
	evaluate(t, &c, expression, "--arg", "enable", "true", "--argstr", "hostName", "")
	if !slices.Equal(c.Boot.KernelParams, []string{"nametag.wait=2m"}) {
		t.Errorf("the kernel is told %q", c.Boot.KernelParams)
	}
	if c.Systemd.Generators["nametag-generator"] != "/nix/store/nametag/bin/nametag" || !slices.Equal(c.Systemd.Packages, []string{"/nix/store/nametag"}) {
		t.Errorf("systemd gets %+v", c.Systemd)
	}
	if len(c.Assertions) != 1 || !c.Assertions[0].Assertion {
		t.Errorf("a configuration without a name is refused: %+v", c.Assertions)
	}
	var named nixos
	evaluate(t, &named, expression, "--arg", "enable", "true", "--argstr", "hostName", "by-hand")
	if len(named.Assertions) != 1 || named.Assertions[0].Assertion {
		t.Errorf("a configuration with a name of its own is not refused: %+v", named.Assertions)
	}
	var off map[string]any
	evaluate(t, &off, expression, "--arg", "enable", "false", "--argstr", "hostName", "by-hand")
	if len(off) != 0 {
		t.Errorf("without enable it does %v", off)
	}

	var p struct {
		Src                       struct{ URL, Hash string }
		UnpackPhase, InstallPhase string
	}
	evaluate(t, &p, strings.ReplaceAll(packageOf, "PACKAGE", filepath.Join(at, "package.nix")))
	made := packages(t, deps.Repo, helpertest.Binary(t, "amd64"), release)
	if name := filepath.Base(p.Src.URL); name != "nametag_0.1.0_amd64.deb" { // as nfpm calls it, of that version
		t.Errorf("the package is made of %s", name)
	}
	out := filepath.Join(t.TempDir(), "out")
	const nix = `set -euo pipefail
runHook() { :; }
substituteInPlace() { [ "$2" = --replace-fail ] && grep -q "$3" "$1" && sed -i "s|$3|$4|g" "$1"; }
`
	run := exec.CommandContext(t.Context(), "bash", "-c", nix+p.UnpackPhase+"\n"+p.InstallPhase)
	run.Dir = t.TempDir()
	run.Env = append(os.Environ(), "src="+filepath.Join(made, "nametag_1.2.3_amd64.deb"), "out="+out)
	if text, err := run.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, text)
	}
	unit, err := os.ReadFile(filepath.Join(out, "lib/systemd/system/nametag.service"))
	if err != nil || !strings.Contains(string(unit), "ExecStart="+out+"/bin/nametag apply --at-boot") {
		t.Errorf("the unit does not run the program from the store: %v\n%s", err, unit)
	}
	if version, err := exec.CommandContext(t.Context(), filepath.Join(out, "bin/nametag"), "version").Output(); err != nil { //nolint:gosec // just made
		t.Errorf("the program does not run: %v: %s", err, version)
	}
}

// stderr is what a command that failed said.
func stderr(err error) string {
	if failed, ok := err.(*exec.ExitError); ok { //nolint:errorlint // exec returns it bare
		return string(failed.Stderr)
	}
	return ""
}
