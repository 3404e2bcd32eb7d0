package procfs

import (
	"fmt"
	"net/netip"
	"os"
	"reflect"
	"slices"
	"strings"

	"github.com/siderolabs/go-procfs/procfs"
)

// The neighbours of Parameter.
const (
	paramHostname = "talos.hostname"
	paramPlatform = "talos.platform"
	paramIP       = "ip"
	paramSystemd  = "systemd.hostname" // systemd's (kernel-command-line(7))
	paramDracut   = "hostname"         // older initramfs generators'
)

// CommandLine is what the kernel command line says about the node's name.
type CommandLine struct {
	// Policy is the one that the argument asks for; Off if there is none.
	Policy Policy
	// Present reports whether the argument stands on the line, malformed or not,
	// by either of its names.
	Present bool
	// Hostname is the name that the operator gave, and HostnameFrom the argument
	// that gave it: "talos.hostname=", "ip=" (field 5 of it), "systemd.hostname="
	// or "hostname=", whichever comes first in this order. Both are empty if no
	// name was given. The name is as it stands on the line, not validated.
	Hostname, HostnameFrom string
	// Platform is the value of talos.platform=, empty if there is none.
	Platform string
}

// Parse reads a command line. If talos.hostname.wait= is malformed, or says
// something else than nametag.wait= beside it, the error is an [*Error], and the
// CommandLine is complete and its Policy that of [Default]. A nil c is an empty line.
func Parse(c *procfs.Cmdline) (CommandLine, error) { return Parser{}.Parse(c) }

// ParseString reads a command line from a string. See [Parse].
func ParseString(s string) (CommandLine, error) { return Parser{}.ParseString(s) }

// Read reads /proc/cmdline, afresh at each call. See [Parse]. Where the file
// cannot be read, the error wraps the cause and the CommandLine is zero: nobody
// asked for waiting as far as one can tell.
func Read() (CommandLine, error) { return Parser{}.Read() }

// A Parser reads an argument of another name, for a distribution that has a prefix
// of its own: the same grammar, the same protection from slips, and errors that name
// that argument. The zero Parser reads [Parameter] and its [Alias], as the functions
// of the package do.
type Parser struct {
	// Parameter is the argument's name, "myos.hostname.wait" for instance, in lower
	// case. Neither Parameter nor Alias of the package counts then. (A [Policy] is
	// still printed as the package's argument; its Value is what stands behind the "=".)
	Parameter string
}

// names are those that the argument goes by, the first one first.
func (p Parser) names() []string {
	if p.Parameter != "" {
		return []string{p.Parameter}
	}
	return []string{Parameter, Alias}
}

// Parse is [Parse] for this argument.
func (p Parser) Parse(c *procfs.Cmdline) (CommandLine, error) {
	if c == nil {
		return CommandLine{}, nil
	}
	line := CommandLine{Platform: first(c, paramPlatform)}
	if name := first(c, paramHostname); name != "" {
		line.Hostname, line.HostnameFrom = name, paramHostname+"="
	} else if name := hostnameOfIP(c.Get(paramIP)); name != "" {
		line.Hostname, line.HostnameFrom = name, paramIP+"="
	} else if name := last(c, paramSystemd); name != "" {
		line.Hostname, line.HostnameFrom = name, paramSystemd+"="
	} else if name := first(c, paramDracut); name != "" {
		line.Hostname, line.HostnameFrom = name, paramDracut+"="
	}
	var err error
	if line.Policy, line.Present, err = p.argument(c); line.Present {
		return line, err
	}
	if err := p.misspelt(c); err != nil {
		line.Present = true
		line.Policy = Default()
		return line, err
	}
	return line, nil
}

// ParseString is [ParseString] for this argument.
func (p Parser) ParseString(s string) (CommandLine, error) { return p.Parse(procfs.NewCmdline(s)) }

// Read is [Read] for this argument.
func (p Parser) Read() (CommandLine, error) { return p.readFile("/proc/cmdline") }

func (p Parser) readFile(name string) (CommandLine, error) {
	// Not procfs.ProcCmdline, which panics without /proc and reads only once.
	text, err := os.ReadFile(name)
	if err != nil {
		return CommandLine{}, fmt.Errorf("procfs: reading the kernel command line: %w", err)
	}
	return p.ParseString(string(text))
}

// argument reads the argument by whichever of its names is there, and reports
// whether one is. Where two differ there is no telling which was meant.
func (p Parser) argument(c *procfs.Cmdline) (policy Policy, present bool, err error) {
	var name, value string // of the one before
	for _, other := range slices.Backward(p.names()) {
		text := c.Get(other).First()
		if text == nil {
			continue
		}
		before := policy
		if policy, err = p.parse(other, *text); err != nil {
			return policy, true, err
		}
		if present && !reflect.DeepEqual(policy, before) {
			return Default(), true, &Error{
				Argument: name + "=" + value, Part: value, Reason: "contradicts " + other + "=" + *text + " beside it",
				Suggestion: *text,
			}
		}
		name, value, present = other, *text, true
	}
	return policy, present, nil
}

// last returns the last value of an argument, or "".
func last(c *procfs.Cmdline, key string) (value string) {
	p := c.Get(key)
	for i := 0; p.Get(i) != nil; i++ {
		value = *p.Get(i)
	}
	return value
}

// first returns the first value of an argument, or "".
func first(c *procfs.Cmdline, key string) string {
	if v := c.Get(key).First(); v != nil {
		return *v
	}
	return ""
}

// hostnameOfIP returns field 5 of the first ip= that has one:
//
//	ip=client:server:gateway:netmask:HOSTNAME:device:autoconf:dns:dns:ntp
//
// (Documentation/admin-guide/nfs/nfsroot.rst). The first field is an address or
// empty there. Where it is neither, the argument is one of the short forms
// (ip=dhcp, ip=eth0:dhcp, dracut's ip=eth0:dhcp:1500:86:00:00:12:34:56), in
// which the fifth field would be a piece of a MAC.
func hostnameOfIP(p *procfs.Parameter) string {
	for i := 0; p.Get(i) != nil; i++ {
		fields := splitIP(*p.Get(i))
		if len(fields) < 5 || fields[4] == "" {
			continue
		}
		if _, err := netip.ParseAddr(fields[0]); err == nil || fields[0] == "" {
			return fields[4]
		}
	}
	return ""
}

// splitIP splits at the colons that are not inside brackets, as IPv6 addresses
// are, and takes the brackets off.
func splitIP(s string) []string {
	var (
		fields []string
		start  int
		inside bool
	)
	add := func(field string) {
		field = strings.TrimPrefix(field, "[")
		fields = append(fields, strings.TrimSuffix(field, "]"))
	}
	for i := range len(s) {
		switch s[i] {
		case '[':
			inside = true
		case ']':
			inside = false
		case ':':
			if !inside {
				add(s[start:i])
				start = i + 1
			}
		}
	}
	add(s[start:])
	return fields
}

// misspelt finds an argument that was meant to be this one: other case, in quotes, or
// two letters wrong at most, one of a short name (nametag.init is another argument than
// [Alias]). The first letter must be right, so that the imager's -talos.hostname.wait,
// which takes an argument away, is not one.
func (p Parser) misspelt(c *procfs.Cmdline) error {
	c.Lock()
	defer c.Unlock()
	for _, param := range c.Parameters {
		value := param.First()
		if value == nil {
			continue
		}
		key := strings.ToLower(strings.TrimLeft(param.Key(), `"'`))
		names := p.names()
		meant := slices.IndexFunc(names, func(name string) bool { return slip(key, name) })
		if meant < 0 {
			continue
		}
		argument := param.Key()
		if *value != "" {
			argument += "=" + *value
		}
		return &Error{Argument: argument, Part: param.Key(), Reason: "is no argument of this name", Suggestion: names[meant]}
	}
	return nil
}

// slip reports whether key was meant to be name.
func slip(key, name string) bool {
	wrong := 2
	if len(name) < 16 {
		wrong = 1
	}
	return len(key) <= len(name)+wrong && strings.HasPrefix(key, name[:1]) && distance(key, name) <= wrong
}
