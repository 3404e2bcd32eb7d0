package procfs

import (
	"errors"
	"reflect"
	"strings"
	"testing"
	"time"
)

const theirs = "myos.hostname.wait"

// A distribution's own name has all that ours have.
func TestAParserReadsAnArgumentOfAnotherName(t *testing.T) {
	p := Parser{Parameter: theirs}
	halts := Policy{Mode: Bounded, Wait: 2 * time.Minute, Then: Halt}
	for _, tt := range []struct {
		about, line string
		want        CommandLine
		argument    string // that of the error; empty: there is none
		suggestion  string
	}{
		{"as it is meant", "quiet " + theirs + "=2m,then=halt", CommandLine{Policy: halts, Present: true}, "", ""},
		{"not there", "quiet", CommandLine{}, "", ""},
		{"the package's own names do not count", Parameter + "=1m " + Alias + "=1m", CommandLine{}, "", ""},
		{"nor contradict it", Parameter + "=1m " + theirs + "=2m,then=halt", CommandLine{Policy: halts, Present: true}, "", ""},
		{"the operator's name beside it", "talos.hostname=by-hand " + theirs + "=2m,then=halt", CommandLine{Policy: halts, Present: true, Hostname: "by-hand", HostnameFrom: "talos.hostname="}, "", ""},
		{"malformed", theirs + "=90", CommandLine{Policy: Default(), Present: true}, theirs + "=90", "90s"},
		{"named twice", theirs + "=" + theirs + "=90s", CommandLine{Policy: Default(), Present: true}, theirs + "=" + theirs + "=90s", "90s"},
		{"a slip of the pen", "myos.hostname.wiat=2m", CommandLine{Policy: Default(), Present: true}, "myos.hostname.wiat=2m", theirs},
		{"in quotes", `"` + theirs + `=2m"`, CommandLine{Policy: Default(), Present: true}, `"` + theirs + `=2m"`, theirs},
	} {
		t.Run(tt.about, func(t *testing.T) {
			got, err := p.ParseString(tt.line)
			if !reflect.DeepEqual(got, tt.want) {
				t.Errorf("%q is read as %+v, not %+v", tt.line, got, tt.want)
			}
			e, is := errors.AsType[*Error](err)
			if is != (tt.argument != "") || is && (e.Argument != tt.argument || e.Suggestion != tt.suggestion) {
				t.Errorf("%q: %+v", tt.line, err)
			}
		})
	}
	if _, err := p.ParsePolicy("90"); err == nil || !strings.Contains(err.Error(), theirs+"=90") {
		t.Errorf("the error of a value names %v", err)
	}
}
