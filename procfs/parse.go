package procfs

import (
	"slices"
	"strings"
	"time"
)

// longestValue bounds the work on one argument. The kernel's whole command line
// is at most 4096 bytes (COMMAND_LINE_SIZE, arch/*/include/uapi/asm/setup.h).
const longestValue = 4096

// ParsePolicy reads what stands behind the "=" of talos.hostname.wait=. If it is
// malformed, the error is an [*Error] and the policy is that of [Default], with
// nothing of the argument in it: half of an argument may be worse than none.
func ParsePolicy(value string) (Policy, error) { return Parser{}.ParsePolicy(value) }

// ParsePolicy is [ParsePolicy] for this argument.
func (p Parser) ParsePolicy(value string) (Policy, error) { return p.parse(p.names()[0], value) }

// parse is ParsePolicy for the argument by that of its names.
func (p Parser) parse(name, value string) (Policy, error) {
	policy, err := p.parsePolicy(value)
	if err != nil {
		err.Argument = name + "=" + value
		return Default(), err
	}
	return policy, nil
}

func (p Parser) parsePolicy(value string) (Policy, *Error) {
	if len(value) > longestValue {
		return Policy{}, &Error{Part: value, Reason: "is longer than any kernel command line"}
	}
	if value != "" && (value[0] == '"' || value[0] == '\'') {
		return Policy{}, &Error{
			Part:       value,
			Reason:     "is in quotes, which are not taken away",
			Suggestion: strings.Trim(value, `"'`),
		}
	}
	policy, err := p.parseItems(value)
	if err != nil {
		// A card's name may have a semicolon in it; so this is looked at only where something is wrong.
		meant := strings.ReplaceAll(value, ";", ",")
		if _, still := p.parseItems(meant); meant != value && still == nil {
			return Policy{}, &Error{Part: value, Reason: "is parted by semicolons, where commas belong", Suggestion: meant}
		}
	}
	return policy, err
}

// parseItems reads VALUE[,KEY=VALUE…].
func (p Parser) parseItems(value string) (Policy, *Error) {
	head, rest, more := strings.Cut(value, ",")
	policy, err := p.parseWait(head)
	if err != nil {
		return Policy{}, err
	}
	said := map[string]string{} // the keys that may not be repeated
	for more {
		var item string
		item, rest, more = strings.Cut(rest, ",")
		if err := policy.set(item, said); err != nil {
			return Policy{}, err
		}
	}
	return policy, nil
}

// parseWait reads VALUE.
func (p Parser) parseWait(s string) (Policy, *Error) {
	policy := Default()
	switch s {
	case "", "1", "on", "true", "yes":
		return policy, nil
	case "0", "off", "false", "no":
		return Policy{Mode: Off}, nil
	case "forever":
		return Policy{Mode: Forever}, nil
	}
	d, err := time.ParseDuration(s)
	if err == nil && d >= shortestWait && d <= longestWait {
		policy.Wait = d
		return policy, nil
	}
	e := &Error{Part: s}
	secs, guess, numeric := guessWait(s)
	switch {
	case slices.ContainsFunc(p.names(), func(name string) bool { return strings.HasPrefix(s, name+"=") }):
		e.Reason = "names the argument once more"
		_, e.Suggestion, _ = strings.Cut(s, "=")
	case strings.Contains(s, "="):
		e.Reason = "stands where the time belongs"
		if _, err := p.parseItems("1," + s); err == nil {
			e.Suggestion = "1," + s
		}
	case err == nil && d < 0, numeric && s[0] == '-':
		e.Reason = "is negative"
		e.Suggestion = guess
	case err == nil && d == 0:
		e.Reason = "is no time at all"
		e.Suggestion = "off"
	case err == nil && d < shortestWait:
		e.Reason = "is too short for any network"
	case err == nil && d > longestWait, numeric && secs > longestWait.Seconds():
		e.Reason = "is longer than a year"
		e.Suggestion = "forever"
	case numeric && strings.Trim(s, "+0123456789.") == "":
		e.Reason = "has no unit"
		e.Suggestion = guess
	default:
		e.Reason = "is neither a duration with its unit (90s, 2m) nor one of forever, on, off"
		e.Suggestion = guess
		if guess == "" {
			e.Suggestion = nearest(s, []string{"forever", "off", "on", "true", "false", "yes", "no"})
		}
	}
	return Policy{}, e
}

// set applies one KEY=VALUE.
func (p *Policy) set(item string, said map[string]string) *Error {
	key, value, ok := strings.Cut(item, "=")
	var err *Error
	switch {
	case item == "":
		return &Error{Reason: "a comma with nothing behind it"}
	case !ok:
		return &Error{Part: item, Reason: "is not KEY=VALUE", Suggestion: guessItem(item)}
	case key == "then":
		if p.Then, err = choose[Then](key, value, thens); err == nil {
			err = once(said, key, value)
		}
	case key == "keep":
		if p.Keep, err = choose[Keep](key, value, keeps); err == nil {
			err = once(said, key, value)
		}
	case key == "known":
		if p.Known, p.Patience, err = parseKnown(value); err == nil {
			err = once(said, key, value)
		}
	case key == "rename":
		if p.Rename, err = choose[Rename](key, value, renames); err == nil {
			err = once(said, key, value)
		}
	case key == "id":
		if p.ID, err = choose[ID](key, value, ids); err == nil {
			err = once(said, key, value)
		}
	case key == "nic":
		var nic string
		if nic, err = parseNIC(value); err == nil && !slices.Contains(p.NICs, nic) {
			p.NICs = append(p.NICs, nic)
		}
	case key == "via":
		if _, err = choose[uint8](key, value, vias); err == nil && !slices.Contains(p.Via, value) {
			p.Via = append(p.Via, value)
		}
	default:
		return &Error{
			Part:       item,
			Reason:     "has an unknown key; the keys are " + strings.Join(keys(), ", "),
			Suggestion: guessKey(key, value),
		}
	}
	return err
}

// parseKnown reads the value of known=: a duration, off or strict.
func parseKnown(s string) (Known, time.Duration, *Error) {
	switch s {
	case "off":
		return KnownOff, 0, nil
	case "strict":
		return KnownStrict, 0, nil
	}
	d, err := time.ParseDuration(s)
	switch {
	case err == nil && d == 0 && s != "0":
		return KnownGoes, AtOnce, nil
	case err == nil && d == DefaultPatience:
		return KnownGoes, 0, nil
	case err == nil && d >= shortestWait && d <= longestWait:
		return KnownGoes, d, nil
	}
	e := &Error{Part: "known=" + s}
	secs, guess, numeric := guessWait(s)
	switch {
	case s == "0":
		e.Reason, guess = "has no unit", "0s"
	case err == nil && d < 0, numeric && s[0] == '-':
		e.Reason = "is negative"
	case err == nil && d < shortestWait:
		e.Reason, guess = "is too short for any network", "0s"
	case err == nil && d > longestWait, numeric && secs > longestWait.Seconds(), s == "forever":
		e.Reason, guess = "never lets a known name count", "off"
	case numeric && strings.Trim(s, "+0123456789.") == "":
		e.Reason = "has no unit"
	default:
		e.Reason = "is neither a duration with its unit (15s, 0s for at once) nor one of off, strict"
		if guess == "" {
			guess = nearest(s, []string{"off", "strict"})
		}
	}
	e.Suggestion = prefixed("known=", guess)
	return 0, 0, e
}

// once refuses a key that was given before and said something else: there is no
// telling which was meant.
func once(said map[string]string, key, value string) *Error {
	before, twice := said[key]
	if twice && before != value {
		return &Error{Part: key + "=" + value, Reason: "contradicts " + key + "=" + before + " before it"}
	}
	said[key] = value
	return nil
}
