//go:build linux

package kmod

import "strings"

// params returns what the kernel command line has for a module, in the form that
// finit_module(2) takes: "virtio_net.napi_tx=0" gives "napi_tx=0". Arguments are
// told apart as next_arg does in the kernel's lib/cmdline.c: double quotes hold
// one together, and those around the whole of it are not part of it. What stands
// behind "--" is for init.
func params(cmdline, module string) string {
	var found []string
	for rest := cmdline; rest != ""; {
		var arg string
		arg, rest = nextArg(rest)
		if arg == "--" {
			break
		}
		whole := strings.HasPrefix(arg, `"`)
		if whole {
			arg = strings.Trim(arg, `"`)
		}
		key, value, hasValue := strings.Cut(arg, "=")
		name, param, ok := strings.Cut(key, ".")
		if !ok || param == "" || strings.ReplaceAll(name, "-", "_") != module {
			continue
		}
		if hasValue && whole {
			value = `"` + value + `"`
		}
		if hasValue {
			param += "=" + value
		}
		found = append(found, param)
	}
	return strings.Join(found, " ")
}

// nextArg cuts the first argument off a command line.
func nextArg(s string) (arg, rest string) {
	const space = " \t\n\v\f\r"
	s = strings.TrimLeft(s, space)
	quoted := false
	for i := range len(s) {
		switch {
		case s[i] == '"':
			quoted = !quoted
		case !quoted && strings.IndexByte(space, s[i]) >= 0:
			return s[:i], s[i:]
		}
	}
	return s, ""
}
