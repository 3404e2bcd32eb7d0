package procfs

import (
	"net"
	"path"
	"strings"
	"unicode"
	"unicode/utf8"
)

// longestName is IFNAMSIZ without the NUL at its end (linux/if.h).
const longestName = 15

// parseNIC reads the value of nic=. A MAC is returned in lower case with colons.
func parseNIC(s string) (string, *Error) {
	wrong := func(reason, suggestion string) (string, *Error) {
		return "", &Error{Part: "nic=" + s, Reason: reason, Suggestion: prefixed("nic=", suggestion)}
	}
	if s == "" {
		return wrong("names no interface", "")
	}
	if !utf8.ValidString(s) || strings.ContainsFunc(s, unfit) {
		return wrong("has a character that no interface name on a command line can have", "")
	}
	glob := strings.ContainsAny(s, `*?[\`)
	// dev_valid_name (net/core/dev.c) refuses a colon, so a colon means a MAC.
	// The form with dots is left alone: 8600.0012.3456 is a valid name.
	if !glob && (strings.Contains(s, ":") || len(s) == 17 && strings.Count(s, "-") == 5) {
		mac, err := net.ParseMAC(s)
		switch {
		case err != nil || len(mac) != 6:
			return wrong("is not a MAC of six bytes such as 86:00:00:12:34:56", "")
		case mac[0]&1 != 0 || mac.String() == "00:00:00:00:00:00":
			// is_valid_ether_addr (linux/etherdevice.h)
			return wrong("is a MAC that no single interface can have", "")
		}
		return mac.String(), nil
	}
	if strings.Contains(s, ":") {
		return wrong("is a glob with a colon; a glob is matched against names, and those have none", "")
	}
	if strings.Contains(s, "/") || s == "." || s == ".." {
		return wrong("is no name that the kernel gives to an interface", "")
	}
	if glob {
		if _, err := path.Match(s, ""); err != nil {
			return wrong("is a malformed glob", "")
		}
		if strings.Contains(s, "[!") {
			return wrong("negates a set with !", strings.ReplaceAll(s, "[!", "[^"))
		}
		return s, nil
	}
	if len(s) > longestName {
		return wrong("is longer than the 15 bytes of an interface name", s[:longestName-1]+"*")
	}
	return s, nil
}

// unfit reports characters that the kernel's names cannot have or that would not
// come back from a command line as they were: spaces end an argument, quotes
// hold one together, a comma ends the key.
func unfit(r rune) bool {
	return unicode.IsSpace(r) || unicode.IsControl(r) || r == '"' || r == '\'' || r == ','
}
