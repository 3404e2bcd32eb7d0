package procfs

import (
	"errors"
	"os"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// A row of one of README's two tables: what is in backquotes in the first two cells, and the third cell.
type row struct {
	words   []string // of the first
	values  []string // of the second
	meaning string   // the second, as it stands
	def     string   // the third
}

var backquoted = regexp.MustCompile("`([^`]*)`")

// tableOf reads the table of the README whose first heading that is.
func tableOf(t *testing.T, heading string) []row {
	t.Helper()
	text, err := os.ReadFile("../README.md")
	if err != nil {
		t.Fatal(err)
	}
	words := func(cell string) (all []string) {
		for _, m := range backquoted.FindAllStringSubmatch(cell, -1) {
			all = append(all, m[1])
		}
		return all
	}
	_, rest, found := strings.Cut(string(text), "| "+heading+" |")
	if !found {
		t.Fatalf("the README has no table with %s", heading)
	}
	var rows []row
	for line := range strings.Lines(strings.SplitN(rest, "\n\n", 2)[0]) {
		if cells := strings.Split(strings.TrimSpace(line), "|"); len(cells) >= 4 && !strings.HasPrefix(cells[1], " ---") && line[0] == '|' {
			r := row{words: words(cells[1]), values: words(cells[2]), meaning: cells[2]}
			if len(cells) > 4 {
				r.def = cells[3]
			}
			if strings.Contains(cells[1], "nothing") {
				r.words = append(r.words, "")
			}
			rows = append(rows, r)
		}
	}
	return rows
}

// The values that the README lists are understood as it says.
func TestTheValuesOfTheArgumentAreThoseOfTheReadme(t *testing.T) {
	defaults, err := ParsePolicy("")
	if err != nil {
		t.Fatal(err)
	}
	seen := 0
	for _, r := range tableOf(t, "VALUE") {
		for _, value := range r.words {
			seen++
			got, err := ParsePolicy(value)
			slip := strings.Contains(r.meaning, "an error")
			if e := (*Error)(nil); (err != nil) != slip || slip && !errors.As(err, &e) {
				t.Errorf("%q: the error is %v", value, err)
			}
			want := Policy{Mode: Bounded}
			switch {
			case slip, strings.Contains(r.meaning, "the default policy"):
				if !reflect.DeepEqual(got, defaults) {
					t.Errorf("%q is %v, not the default policy", value, got)
				}
				continue
			case strings.Contains(r.meaning, "do nothing"):
				want.Mode = Off
			case strings.Contains(r.meaning, "no bound"):
				want.Mode = Forever
			}
			if got.Mode != want.Mode {
				t.Errorf("%q is %v, and the README says %s", value, got, r.meaning)
			}
		}
		if strings.Contains(r.meaning, "the default policy:") && !strings.Contains(r.meaning, "an error") {
			if minutes, then := int(defaults.Wait.Minutes()), defaults.Then.String(); !strings.Contains(r.meaning, strconv.Itoa(minutes)+" minutes, then "+then) {
				t.Errorf("the default is %v, and the README says %s", defaults, r.meaning)
			}
		}
	}
	if seen < 10 {
		t.Errorf("the README has %d values", seen)
	}
}

// The keys that the README lists are all that there are, with their values and what holds without them.
func TestTheKeysOfTheArgumentAreThoseOfTheReadme(t *testing.T) {
	var listed []string
	for _, r := range tableOf(t, "KEY") {
		if len(r.words) != 1 {
			t.Errorf("a row has the keys %q", r.words)
			continue
		}
		key := r.words[0]
		listed = append(listed, key)
		for _, value := range r.values {
			if key == "known" && value == "15s" { // which another one is compared with
				continue
			}
			if _, err := ParsePolicy("90s," + key + "=" + value); err != nil {
				t.Errorf("%s=%s: %v", key, value, err)
			}
		}
		if all := wordsOf(key); all != nil && !slices.Equal(slices.Sorted(slices.Values(all)), slices.Sorted(slices.Values(r.values))) {
			t.Errorf("%s takes %q, and the README lists %q", key, all, r.values)
		}
		for _, m := range backquoted.FindAllStringSubmatch(r.def, -1) {
			with, err := ParsePolicy("90s," + key + "=" + m[1])
			without, err2 := ParsePolicy("90s")
			if key == "via" { // several: each is one of those that are used by itself
				continue
			}
			if err != nil || err2 != nil || effect(with) != effect(without) {
				t.Errorf("%s=%s is not what holds without it: %v, %v", key, m[1], with, without)
			}
		}
	}
	if all := slices.Sorted(slices.Values(keys())); !slices.Equal(slices.Sorted(slices.Values(listed)), all) {
		t.Errorf("the keys are %q, and the README lists %q", all, listed)
	}
}

// effect is what a policy comes to.
func effect(p Policy) string {
	after, counts := p.KnownAfter()
	return strings.Join([]string{p.Then.String(), p.Keep.String(), after.String(), strconv.FormatBool(counts), p.Known.String(), p.Rename.String(), p.ID.String()}, " ")
}

// wordsOf are all values of a key that takes words alone; nil for another one.
func wordsOf(key string) []string {
	return map[string][]string{"then": thens(), "keep": keeps(), "rename": renames(), "id": ids(), "via": vias()}[key]
}
