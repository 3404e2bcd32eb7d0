// Package cmdline knows the kernel arguments that belong to nametag: which to add for a policy, and what is wrong with a
// command line that has some.
//
// It keeps no state; its functions may be called concurrently.
package cmdline

import (
	"errors"
	"fmt"
	"io/fs"
	"regexp"
	"strings"

	"github.com/nametag-boot/nametag/internal/image/initramfs"
	"github.com/nametag-boot/nametag/internal/kernelarg"
	"github.com/nametag-boot/nametag/procfs"
)

// Platform is what talos.platform= says on the machines that nametag is for.
const Platform = "hcloud"

// next is the argument by which nametag is told what to execute in the end.
const next = "nametag.init"

// Arguments are the ones to add for a policy, such as "talos.hostname.wait=2m". Where nametag is not the image's /init,
// path is where it stands, and the kernel is told: always with init=/init, which it falls back to where the helper
// cannot be executed. (A helper that is missing makes it panic all the same.)
func Arguments(policy, path string) []string {
	if path == "" {
		return []string{policy}
	}
	return []string{policy, "rdinit=/" + strings.TrimPrefix(path, "/"), "init=/init"}
}

// A Finding is something about a command line that its writer should know.
type Finding struct {
	// Mistake is set where nametag, or the boot, will not do what was meant; otherwise it is a hint.
	Mistake bool `json:"mistake"`
	// Argument is the one that it is about, as it stands on the line; empty if it is about one that is not there.
	Argument string `json:"argument"`
	Problem  string `json:"problem"`
	Remedy   string `json:"remedy"`
}

// Options are what is known beside the command line. The zero value is nothing.
type Options struct {
	// Image is the initramfs that it is for.
	Image *initramfs.Image
	// Path is where the helper stands by the release of Talos that it is for, without a leading slash.
	Path string
}

// Check says what is wrong with a command line. Nothing found is nil.
func Check(line string, o Options) []Finding {
	c := &check{Options: o, fields: kernelarg.Texts(kernelarg.Fields(line))}
	c.kernel, c.init = kernelarg.Split(line)
	c.length(line)
	c.policy(line)
	c.loose()
	c.slips()
	c.twice(procfs.Parameter, c.all(procfs.Parameter), "the first counts")
	c.twice(procfs.Alias, c.all(procfs.Alias), "the first counts")
	c.twice("talos.platform", c.all("talos.platform"), "Talos takes the first")
	c.twice("rdinit", kernelarg.Texts(c.forKernel("rdinit")), "the kernel takes the last")
	c.twice("init", kernelarg.Texts(c.forKernel("init")), "the kernel takes the last")
	c.twice(next, c.all(next), "nametag takes the first")
	c.initrd()
	c.rdinit()
	c.next()
	return c.findings
}

type check struct {
	Options
	fields       []string        // as Talos and nametag see the line
	kernel, init []kernelarg.Arg // as the kernel sees it: for itself, and for init
	findings     []Finding
}

func (c *check) mistake(argument, remedy, format string, args ...any) {
	c.findings = append(c.findings, Finding{true, argument, fmt.Sprintf(format, args...), remedy})
}

func (c *check) hint(argument, remedy, format string, args ...any) {
	c.findings = append(c.findings, Finding{false, argument, fmt.Sprintf(format, args...), remedy})
}

// own is nametag's own argument by the name that it has on this line; empty where there is none.
func (c *check) own() string {
	for _, name := range []string{procfs.Parameter, procfs.Alias} {
		if all := c.all(name); len(all) > 0 {
			return all[0]
		}
	}
	return ""
}

// all is the arguments of a name that Talos and nametag look for, in order.
func (c *check) all(name string) []string {
	var all []string
	for _, f := range c.fields {
		if key, _, _ := strings.Cut(f, "="); key == name {
			all = append(all, f)
		}
	}
	return all
}

// forKernel is the arguments of a name that the kernel looks for, also where they stand behind a "--".
func (c *check) forKernel(name string) []kernelarg.Arg {
	return append(kernelarg.Named(c.kernel, name), kernelarg.Named(c.init, name)...)
}

// last is the last argument of a name that the kernel looks for: of those that it looks at, if there is one.
func (c *check) last(name string) (arg kernelarg.Arg, ok bool) {
	all := kernelarg.Named(c.kernel, name)
	if len(all) == 0 {
		all = kernelarg.Named(c.init, name)
	}
	if len(all) == 0 {
		return kernelarg.Arg{}, false
	}
	return all[len(all)-1], true
}

func (c *check) length(line string) {
	if n := len(strings.TrimSpace(line)); n > kernelarg.MaxLine {
		c.mistake("", "shorten it", "the line has %d bytes; kernels of amd64 and arm64 cut it off at %d", n, kernelarg.MaxLine)
	}
}

func (c *check) policy(line string) {
	parsed, err := procfs.ParseString(line)
	var malformed *procfs.Error
	switch {
	case errors.As(err, &malformed):
		c.mistake(malformed.Argument, "write what is meant; until then the default counts: "+procfs.Default().String(), "%s",
			strings.TrimPrefix((&procfs.Error{Part: malformed.Part, Reason: malformed.Reason, Suggestion: malformed.Suggestion}).Error(), "procfs: : "))
	case err != nil:
		c.mistake("", "", "%v", err)
	case !parsed.Present:
		c.mistake("", "add "+procfs.Default().String(), "there is no %s=: nametag does nothing", procfs.Parameter)
	case parsed.Policy.Mode == procfs.Off:
		c.hint(c.own(), "", "it switches nametag off")
	default:
		c.nics(parsed.Policy)
		c.known(parsed.Policy)
	}
	if parsed.Hostname != "" {
		all := c.all(strings.TrimSuffix(parsed.HostnameFrom, "="))
		c.mistake(all[len(all)-1], "take it away, unless this one node is to have that name", "it names the node %q: nametag finds nothing out", parsed.Hostname)
	}
	if parsed.Platform != "" && parsed.Platform != Platform {
		c.mistake(c.all("talos.platform")[0], "write talos.platform="+Platform, "on another platform than Hetzner Cloud nametag finds nothing out")
	}
}

// predictable is a name that udev gives to a NIC. In the initramfs, where nametag asks, no udev has run.
var predictable = regexp.MustCompile(`^(en|wl)[opsx*?[]`)

func (c *check) nics(p procfs.Policy) {
	for _, nic := range p.NICs {
		if predictable.MatchString(nic) {
			c.hint(c.own(), "write eth0, a glob such as eth*, or the MAC",
				"nic=%s is a name that udev gives; at boot, before udev, the kernel's own names count", nic)
		}
	}
}

// known looks for times of which one leaves the other nothing to say.
func (c *check) known(p procfs.Policy) {
	patience, counts := p.KnownAfter()
	argument := c.all(procfs.Parameter)
	if len(argument) == 0 { // it is misspelt, which is told
		return
	}
	if counts && p.Patience > 0 && p.Mode == procfs.Bounded && patience >= p.Wait {
		c.hint(argument[0], "", "known=%s is no shorter than the whole wait: a name that the node knows counts when that is over", patience)
	}
	if !counts && p.Rename == procfs.RenameStop {
		c.mistake(argument[0], "leave one of them out", "with known=off no name is remembered, and rename=stop has nothing to compare with")
	}
}

// loose finds what was to be a part of the policy and stands by itself, where nobody reads it.
func (c *check) loose() {
	for i, f := range c.fields {
		if (f == procfs.Parameter || f == procfs.Alias) && i+1 < len(c.fields) {
			if _, err := procfs.ParsePolicy(c.fields[i+1]); err == nil && strings.ContainsAny(c.fields[i+1], "0123456789,") {
				c.mistake(c.fields[i+1], "write "+f+"="+c.fields[i+1], "it stands by itself, and nothing reads it")
			}
		}
		switch key, _, _ := strings.Cut(f, "="); key {
		case "then", "nic", "via", "keep", "known", "rename", "id":
			value := strings.TrimSuffix(f, ",")
			if _, err := procfs.ParsePolicy("1m," + value); err == nil && c.own() != "" {
				name, _, _ := strings.Cut(c.own(), "=")
				c.mistake(f, "write "+name+"=…,"+value+", with a comma and no blank", "it stands by itself, and nothing reads it")
			}
		}
	}
}

// slips finds the neighbours of nametag's own argument, misspelt. (That one is found by whoever reads it.)
func (c *check) slips() {
	for _, name := range []string{"talos.platform", "talos.hostname", "systemd.hostname", next} {
		for _, f := range c.fields {
			if key, rest, _ := strings.Cut(f, "="); slip(key, name) {
				c.mistake(f, "write "+name+"="+rest, "%s= is no argument that anything reads", key)
			}
		}
	}
}

// next looks for what nametag is told to execute in the end.
func (c *check) next() {
	all := c.all(next)
	if len(all) == 0 {
		return
	}
	_, path, _ := strings.Cut(all[0], "=")
	if !strings.HasPrefix(path, "/") {
		c.mistake(all[0], "write the whole path, such as /init", "the path does not begin with a slash")
		return
	}
	if c.Image == nil {
		return
	}
	if n, err := c.Image.Lookup(path); err != nil || !n.IsRegular() || n.Mode&0o111 == 0 {
		c.mistake(all[0], "name one that is there", "the image has no program at %s, which nametag is to execute in the end", path)
	}
}

// twice finds an argument that is given more often than once; which says what of it counts.
func (c *check) twice(name string, all []string, which string) {
	if len(all) > 1 {
		c.mistake(all[1], "leave one", "%s= is given %d times: %s", name, len(all), which)
	}
}

// initrd is the boot loader's, and easily taken for rdinit.
func (c *check) initrd() {
	for _, argument := range c.all("initrd") {
		_, value, _ := strings.Cut(argument, "=")
		if strings.Contains(value, "nametag/nametag") {
			c.mistake(argument, "write rdinit="+value, "initrd= names an initramfs for the boot loader, not a program in it")
		} else {
			c.hint(argument, "", "it names an initramfs for the boot loader: nametag has to be in that one")
		}
	}
}

func (c *check) rdinit() {
	rdinit, given := c.last("rdinit")
	if !given {
		c.noRdinit()
		return
	}
	argument, path := rdinit.Text, rdinit.Value
	if len(kernelarg.Named(c.kernel, "rdinit")) == 0 {
		c.mistake(argument, "write it before the --", "it stands behind --: the kernel passes it on and does not look at it")
	}
	switch init, ok := c.last("init"); {
	case !ok || len(kernelarg.Named(c.kernel, "init")) == 0:
		c.mistake(argument, "add init=/init", "there is no init=/init beside it: where the helper cannot be executed, the kernel panics")
	case init.Value != "/init":
		c.hint(init.Text, "", "where the helper cannot be executed, the kernel falls back to %s and not to /init", init.Value)
	}
	if !strings.HasPrefix(path, "/") {
		c.mistake(argument, "write rdinit=/"+path, "the path does not begin with a slash")
	}
	if c.Path != "" && strings.TrimPrefix(path, "/") != c.Path {
		c.mistake(argument, "write rdinit=/"+c.Path, "that release of Talos has the helper elsewhere")
	}
	if c.Image != nil {
		c.inImage(argument, path)
	}
}

// noRdinit looks at a line that leaves it to the image to have nametag as /init.
func (c *check) noRdinit() {
	for _, f := range c.fields {
		if key, value, _ := strings.Cut(f, "="); slip(key, "rdinit") {
			c.mistake(f, "write rdinit="+value, "%s= is no argument of the kernel", key)
			return
		}
	}
	if init, ok := c.last("init"); ok && strings.Contains(init.Value, "nametag/nametag") {
		c.mistake(init.Text, "write rdinit="+init.Value+" init=/init", "init= names a program of the root file system, and not of the initramfs")
		return
	}
	if c.Image == nil {
		if c.Path != "" {
			c.mistake("", "add rdinit=/"+c.Path+" init=/init", "there is no rdinit=: nothing runs the helper of an extension")
		}
		return
	}
	switch added := c.Image.Added(); {
	case added == nil:
		c.mistake("", "put it in: nametagctl initramfs add, or uki edit --nametag", "nothing runs nametag: there is no rdinit=, and the image's /init is not nametag")
	case added.Way == initramfs.RDInit:
		c.mistake("", "add rdinit=/"+added.Path+" init=/init", "nothing runs nametag: the image has it at /%s, and there is no rdinit=", added.Path)
	}
}

// inImage looks for the helper where the line says that it is.
func (c *check) inImage(argument, path string) {
	remedy := "put it in: nametagctl initramfs add --rdinit --path " + path
	if added := c.Image.Added(); added != nil {
		remedy = "the image has nametag at /" + added.Path
		if added.Way == initramfs.AsInit {
			remedy = "take it away: nametag is the image's /init"
		}
	}
	n, err := c.Image.Lookup(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		c.mistake(argument, remedy, "the image has no %s: the kernel panics (Unable to mount root fs)", path)
	case err != nil:
		c.mistake(argument, remedy, "%s in the image: %v", path, err)
	case !n.IsRegular() || n.Mode&0o111 == 0 || n.Machine == 0:
		c.mistake(argument, remedy, "%s in the image is not a program that can be executed", path)
	default:
		first, err := c.Image.Lookup("init")
		if err != nil {
			c.mistake(argument, "", "the image has no /init, which nametag executes in the end")
			return
		}
		if m := c.Image.Machine(first); m != 0 && m != n.Machine {
			c.mistake(argument, "put in the one for "+initramfs.MachineName(m), "%s in the image is for %s, its /init for %s",
				path, initramfs.MachineName(n.Machine), initramfs.MachineName(m))
		}
	}
}

// slip says whether a word is one slip of the pen away from another: a letter too many, too few, another, or two in the
// wrong order.
func slip(a, b string) bool {
	if a == b {
		return false
	}
	n := 0
	for n < min(len(a), len(b)) && a[n] == b[n] {
		n++
	}
	a, b = a[n:], b[n:]
	switch len(a) - len(b) {
	case 1:
		return a[1:] == b
	case -1:
		return a == b[1:]
	case 0:
		return a[1:] == b[1:] || len(a) > 1 && a[0] == b[1] && a[1] == b[0] && a[2:] == b[2:]
	}
	return false
}
