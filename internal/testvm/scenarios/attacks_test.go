//go:build linux

package scenarios

import (
	"flag"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"
)

var updateAttacks = flag.String("update-attacks", "", "write the table of attacks into this page")

// The table stands between these lines of the page.
const tableBegins, tableEnds = "<!-- attacks -->\n", "<!-- end of attacks -->\n"

// TestAttackTable measures how long a name takes under each attack, 20 times, and writes it into a page.
func TestAttackTable(t *testing.T) {
	if *updateAttacks == "" {
		return // nothing is asked for: make attacks
	}
	const runs = 20
	var table strings.Builder
	fmt.Fprintf(&table, "%s| on the link | by | the name after (median) | at most | right |\n| --- | --- | --- | --- | --- |\n", tableBegins)
	for i := range attacks() {
		var times []time.Duration
		var s scenario
		for run := range runs {
			var took time.Duration
			s = attacks()[i] // strangers count what they have sent
			s.took = &took
			if t.Run(fmt.Sprintf("%s %d", s.about, run), s.play) {
				times = append(times, took)
			}
		}
		if len(times) == 0 {
			continue // and the test has failed
		}
		slices.Sort(times)
		by := "both"
		if len(s.methods) == 1 {
			by = s.methods[0].String()
		}
		fmt.Fprintf(&table, "| %s | %s | %v | %v | %d of %d |\n", s.about, by,
			times[len(times)/2].Round(10*time.Millisecond), times[len(times)-1].Round(10*time.Millisecond), len(times), runs)
	}
	page, err := os.ReadFile(*updateAttacks)
	if err != nil {
		t.Fatal(err)
	}
	before, rest, ok := strings.Cut(string(page), tableBegins)
	_, after, ok2 := strings.Cut(rest, tableEnds)
	if !ok || !ok2 {
		t.Fatalf("%s has no %q and %q", *updateAttacks, tableBegins, tableEnds)
	}
	if err := os.WriteFile(*updateAttacks, []byte(before+table.String()+tableEnds+after), 0o644); err != nil {
		t.Fatal(err)
	}
}

// attacks are the strangers, after nobody.
func attacks() []scenario {
	all := []scenario{
		{about: "nobody else", methods: onlyLinkLocal, lab: attacked(nil)},
		{about: "nobody else", methods: onlyDHCP, lab: attacked(nil)},
	}
	return append(all, strangers()...)
}
