package procfs

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"io"
	"reflect"
	"strings"
	"testing"
	"time"
	"unicode"
	"unicode/utf8"
)

func TestWhatAnArgumentMeans(t *testing.T) {
	bounded := func(d time.Duration, change ...func(*Policy)) Policy {
		p := Policy{Mode: Bounded, Wait: d}
		for _, c := range change {
			c(&p)
		}
		return p
	}
	then := func(th Then) func(*Policy) { return func(p *Policy) { p.Then = th } }
	nics := func(n ...string) func(*Policy) { return func(p *Policy) { p.NICs = n } }
	via := func(v ...string) func(*Policy) { return func(p *Policy) { p.Via = v } }
	kept := func(p *Policy) { p.Keep = KeepNetwork }
	known := func(k Known, d time.Duration) func(*Policy) { return func(p *Policy) { p.Known, p.Patience = k, d } }
	stops := func(p *Policy) { p.Rename = RenameStop }
	def := 5 * time.Minute

	for _, tt := range []struct {
		name, value string
		want        Policy
		prints      string // what comes back, if not value itself
	}{
		{"seconds", "90s", bounded(90 * time.Second), "1m30s"},
		{"minutes", "2m", bounded(2 * time.Minute), ""},
		{"hours", "1h", bounded(time.Hour), ""},
		{"hours and minutes", "1h30m", bounded(90 * time.Minute), ""},
		{"ten minutes keep their nought", "10m", bounded(10 * time.Minute), ""},
		{"twenty hours too", "20h", bounded(20 * time.Hour), ""},
		{"a fraction", "1.5s", bounded(1500 * time.Millisecond), ""},
		{"the shortest wait", "1ms", bounded(time.Millisecond), ""},
		{"the longest wait", "8760h", bounded(8760 * time.Hour), ""},
		{"forever", "forever", Policy{Mode: Forever}, ""},
		{"forever may say then, which never comes", "forever,then=halt", Policy{Mode: Forever, Then: Halt}, ""},
		{"nothing is the default", "", bounded(def), "5m"},
		{"1 is the default", "1", bounded(def), "5m"},
		{"on is the default", "on", bounded(def), "5m"},
		{"true is the default", "true", bounded(def), "5m"},
		{"yes is the default", "yes", bounded(def), "5m"},
		{"0 is off", "0", Policy{}, "off"},
		{"off is off", "off", Policy{}, ""},
		{"false is off", "false", Policy{}, "off"},
		{"no is off", "no", Policy{}, "off"},
		{"off stays off whatever follows", "off,then=halt", Policy{Then: Halt}, ""},
		{"then=reboot is the default and not printed", "2m,then=reboot", bounded(2 * time.Minute), "2m"},
		{"then=poweroff", "2m,then=poweroff", bounded(2*time.Minute, then(PowerOff)), ""},
		{"then=halt", "2m,then=halt", bounded(2*time.Minute, then(Halt)), ""},
		{"then=continue", "2m,then=continue", bounded(2*time.Minute, then(Continue)), ""},
		{"the same then twice is once", "2m,then=halt,then=halt", bounded(2*time.Minute, then(Halt)), "2m,then=halt"},
		{"keys behind an empty value", ",then=halt", bounded(def, then(Halt)), "5m,then=halt"},
		{"keep=none is the default", "2m,keep=none", bounded(2 * time.Minute), "2m"},
		{"keep=network", "2m,keep=network", bounded(2*time.Minute, kept), ""},
		{"a NIC by name", "2m,nic=eth0", bounded(2*time.Minute, nics("eth0")), ""},
		{"a NIC by a name of 15 bytes", "2m,nic=enx860000123456", bounded(2*time.Minute, nics("enx860000123456")), ""},
		{"a NIC by MAC in capitals", "2m,nic=86:00:00:AB:CD:EF", bounded(2*time.Minute, nics("86:00:00:ab:cd:ef")), "2m,nic=86:00:00:ab:cd:ef"},
		{"a NIC by MAC with dashes", "2m,nic=86-00-00-ab-cd-ef", bounded(2*time.Minute, nics("86:00:00:ab:cd:ef")), "2m,nic=86:00:00:ab:cd:ef"},
		{"NICs by glob", "2m,nic=en[ps]?*", bounded(2*time.Minute, nics("en[ps]?*")), ""},
		{"a glob longer than a name", "2m,nic=e[0123456789abcdef][0123456789]*", bounded(2*time.Minute, nics("e[0123456789abcdef][0123456789]*")), ""},
		{"several NICs, one of them twice", "2m,nic=eth1,nic=eth0,nic=eth1", bounded(2*time.Minute, nics("eth1", "eth0")), "2m,nic=eth1,nic=eth0"},
		{"a VLAN's name, which looks like a MAC with dots", "2m,nic=8600.0012.3456", bounded(2*time.Minute, nics("8600.0012.3456")), ""},
		{"several methods, one of them twice", "2m,via=dhcp,via=linklocal,via=dhcp", bounded(2*time.Minute, via("dhcp", "linklocal")), "2m,via=dhcp,via=linklocal"},
		{"via=ipv6", "2m,via=ipv6", bounded(2*time.Minute, via("ipv6")), ""},
		{"known: the default, not printed", "2m,known=15s", bounded(2 * time.Minute), "2m"},
		{"known: the default in other words", "2m,known=0.25m", bounded(2 * time.Minute), "2m"},
		{"known: longer", "2m,known=1m", bounded(2*time.Minute, known(KnownGoes, time.Minute)), ""},
		{"known: at once", "2m,known=0s", bounded(2*time.Minute, known(KnownGoes, AtOnce)), ""},
		{"known: strict", "2m,known=strict", bounded(2*time.Minute, known(KnownStrict, 0)), ""},
		{"known: off", "2m,known=off", bounded(2*time.Minute, known(KnownOff, 0)), ""},
		{"known: the same twice", "2m,known=off,known=off", bounded(2*time.Minute, known(KnownOff, 0)), "2m,known=off"},
		{"known beside forever", "forever,known=1m", Policy{Mode: Forever, Patience: time.Minute}, ""},
		{"rename=follow is the default and not printed", "2m,rename=follow", bounded(2 * time.Minute), "2m"},
		{"rename=stop", "2m,rename=stop", bounded(2*time.Minute, stops), ""},
		{"id=proven is the default and not printed", "2m,id=proven", bounded(2 * time.Minute), "2m"},
		{"id=unproven", "2m,id=unproven", bounded(2*time.Minute, func(p *Policy) { p.ID = IDUnproven }), ""},
		{
			"all keys in any order", "2m,rename=stop,keep=network,nic=eth0,known=strict,via=dhcp,then=halt",
			bounded(2*time.Minute, then(Halt), nics("eth0"), via("dhcp"), kept, known(KnownStrict, 0), stops),
			"2m,then=halt,nic=eth0,via=dhcp,keep=network,known=strict,rename=stop",
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, err := ParsePolicy(tt.value)
			if err != nil {
				t.Fatalf("ParsePolicy(%q): %v", tt.value, err)
			}
			if !reflect.DeepEqual(got, tt.want) {
				t.Errorf("ParsePolicy(%q) = %+v, want %+v", tt.value, got, tt.want)
			}
			prints := tt.prints
			if prints == "" {
				prints = tt.value
			}
			if got.Value() != prints || got.String() != Parameter+"="+prints {
				t.Errorf("prints as %q and %q, want the value %q", got.Value(), got, prints)
			}
		})
	}
}

func TestAMalformedArgumentIsTheDefaultPolicy(t *testing.T) {
	for _, tt := range []struct {
		name, value, part, suggestion string
	}{
		{"a bare number", "90", "90", "90s"},
		{"a bare 2", "2", "2", "2s"},
		{"a bare number with a key", "90,then=halt", "90", "90s"},
		{"a bare fraction", "1.5", "1.5", "1.5s"},
		{"a bare number with a sign", "+90", "+90", "90s"},
		{"two noughts", "00", "00", ""},
		{"a lone point", ".", ".", ""},
		{"a negative duration", "-90s", "-90s", "1m30s"},
		{"a negative bare number", "-90", "-90", "90s"},
		{"no time at all", "0s", "0s", "off"},
		{"a nanosecond", "1ns", "1ns", ""},
		{"more than a year", "8761h", "8761h", "forever"},
		{"more than a year in microseconds", "99999999999999us", "99999999999999us", "forever"},
		{"an overflow", "9999999999h", "9999999999h", "forever"},
		{"an overflow without a unit", strings.Repeat("9", 40), strings.Repeat("9", 40), "forever"},
		{"min", "2min", "2min", "2m"},
		{"seconds spelt out", "30seconds", "30seconds", "30s"},
		{"a day", "1d", "1d", "24h"},
		{"the last unit missing", "1h30", "1h30", "1h30m"},
		{"a capital unit", "2M", "2M", "2m"},
		{"OFF in capitals waits", "OFF", "OFF", "off"},
		{"of", "of", "of", "off"},
		{"ture", "ture", "ture", "true"},
		{"for ever, misspelt", "foreve", "foreve", "forever"},
		{"something else", "bananas", "bananas", ""},
		{"a key where the time belongs", "then=halt", "then=halt", "1,then=halt"},
		{"a key nobody knows where the time belongs", "colour=red", "colour=red", ""},
		{"a semicolon", "2m;then=halt", "2m;then=halt", "2m,then=halt"},
		{"a semicolon further on", "2m,then=halt;keep=network", "2m,then=halt;keep=network", "2m,then=halt,keep=network"},
		{"a semicolon and another slip", "2m;then=halted", "2m;then=halted", ""},
		{"the name once more", Parameter + "=2m", Parameter + "=2m", "2m"},
		{"quotes around it", `"2m,then=halt"`, `"2m,then=halt"`, "2m,then=halt"},
		{"quotes within", `2m,nic="eth0"`, `nic="eth0"`, ""},
		{"a comma at the end", "2m,", "", ""},
		{"two commas", "2m,,then=halt", "", ""},
		{"off and a comma waits", "off,", "", ""},
		{"off and a misspelt key waits", "off,tehn=halt", "tehn=halt", "then=halt"},
		{"a misspelt key", "2m,tehn=halt", "tehn=halt", "then=halt"},
		{"a key in capitals", "2m,Then=halt", "Then=halt", "then=halt"},
		{"a key nobody knows", "2m,colour=red", "colour=red", ""},
		{"a value without its key", "2m,halt", "halt", "then=halt"},
		{"a method without its key", "2m,dhcp", "dhcp", "via=dhcp"},
		{"a key without its value", "2m,then", "then", "then="},
		{"a misspelt then", "2m,then=powerof", "then=powerof", "then=poweroff"},
		{"then of nothing", "2m,then=", "then=", ""},
		{"two thens that differ", "2m,then=halt,then=reboot", "then=reboot", ""},
		{"two keeps that differ", "2m,keep=none,keep=network", "keep=network", ""},
		{"keep with a stranger", "2m,keep=all", "keep=all", ""},
		{"known without a unit", "2m,known=15", "known=15", "known=15s"},
		{"known of a bare nought", "2m,known=0", "known=0", "known=0s"},
		{"known of nothing", "2m,known=", "known=", ""},
		{"known of a day", "2m,known=1d", "known=1d", "known=24h"},
		{"known of a negative time", "2m,known=-5s", "known=-5s", "known=5s"},
		{"known of a nanosecond", "2m,known=1ns", "known=1ns", "known=0s"},
		{"known for ever", "2m,known=forever", "known=forever", "known=off"},
		{"known for more than a year", "2m,known=9000h", "known=9000h", "known=off"},
		{"known, misspelt", "2m,known=strikt", "known=strikt", "known=strict"},
		{"known, the key misspelt", "2m,knwon=5s", "knwon=5s", "known=5s"},
		{"strict without its key", "2m,strict", "strict", "known=strict"},
		{"two knowns that differ", "2m,known=5s,known=off", "known=off", ""},
		{"rename with a stranger", "2m,rename=folow", "rename=folow", "rename=follow"},
		{"rename of nothing", "2m,rename=", "rename=", ""},
		{"follow without its key", "2m,follow", "follow", "rename=follow"},
		{"id with a stranger", "2m,id=unprovn", "id=unprovn", "id=unproven"},
		{"unproven without its key", "2m,unproven", "unproven", "id=unproven"},
		{"two ids that differ", "2m,id=unproven,id=proven", "id=proven", ""},
		{"two renames that differ", "2m,rename=stop,rename=follow", "rename=follow", ""},
		{"a method with a dash", "2m,via=link-local", "via=link-local", "via=linklocal"},
		{"a method nobody knows", "2m,via=pigeon", "via=pigeon", ""},
		{"a NIC of nothing", "2m,nic=", "nic=", ""},
		{"a NIC with a name of 16 bytes", "2m,nic=enx8600001234567", "nic=enx8600001234567", "nic=enx86000012345*"},
		{"a NIC with a slash", "2m,nic=eth/0", "nic=eth/0", ""},
		{"a NIC called .", "2m,nic=.", "nic=.", ""},
		{"a NIC called ..", "2m,nic=..", "nic=..", ""},
		{"a NIC with a space", "2m,nic=eth 0", "nic=eth 0", ""},
		{"a NIC with a control character", "2m,nic=eth\x000", "nic=eth\x000", ""},
		{"a NIC that is not UTF-8", "2m,nic=eth\xff", "nic=eth\xff", ""},
		{"a MAC of five bytes", "2m,nic=86:00:00:12:34", "nic=86:00:00:12:34", ""},
		{"a MAC of eight bytes", "2m,nic=86:00:00:12:34:56:78:9a", "nic=86:00:00:12:34:56:78:9a", ""},
		{"a multicast MAC", "2m,nic=01:00:5e:00:00:01", "nic=01:00:5e:00:00:01", ""},
		{"a MAC of noughts", "2m,nic=00:00:00:00:00:00", "nic=00:00:00:00:00:00", ""},
		{"a glob on MACs", "2m,nic=86:00:00:*", "nic=86:00:00:*", ""},
		{"a glob that does not end", "2m,nic=eth[0", "nic=eth[0", ""},
		{"a glob that negates as a shell does", "2m,nic=eth[!0]", "nic=eth[!0]", "nic=eth[^0]"},
		{"an argument longer than a command line", strings.Repeat("9", 5000) + "s", strings.Repeat("9", 5000) + "s", ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, err := ParsePolicy(tt.value)
			if !reflect.DeepEqual(got, Default()) {
				t.Errorf("ParsePolicy(%q) = %+v, want the default policy", tt.value, got)
			}
			var e *Error
			if !errors.As(err, &e) {
				t.Fatalf("ParsePolicy(%q): error %v, want an *Error", tt.value, err)
			}
			if e.Argument != Parameter+"="+tt.value || e.Part != tt.part || e.Suggestion != tt.suggestion || e.Reason == "" {
				t.Errorf("got %+v\nwant part %q, suggestion %q", e, tt.part, tt.suggestion)
			}
			if len(err.Error()) > 500 || strings.ContainsFunc(err.Error(), unicode.IsControl) || !utf8.ValidString(err.Error()) {
				t.Errorf("not fit for a console: %q", err)
			}
		})
	}
}

func TestASuggestionIsItselfWellFormed(t *testing.T) {
	for _, value := range []string{"90", "-90s", "0s", "8761h", "2min", "1d", "1h30", "OFF", "then=halt", `"2m"`, "1.0005s3"} {
		_, err := ParsePolicy(value)
		var e *Error
		if !errors.As(err, &e) || e.Suggestion == "" {
			t.Errorf("%q: no suggestion in %v", value, err)
			continue
		}
		if _, err := ParsePolicy(e.Suggestion); err != nil {
			t.Errorf("%q: the suggestion is malformed as well: %v", value, err)
		}
	}
}

func TestAnErrorIsOneLineThatSaysWhatWasMeant(t *testing.T) {
	_, err := ParsePolicy("90")
	want := `procfs: talos.hostname.wait=90: "90" has no unit (did you mean 90s?)`
	if err == nil || err.Error() != want {
		t.Errorf("got  %v\nwant %s", err, want)
	}
}

func TestWordsOfThenAndKeep(t *testing.T) {
	for want, word := range []string{"reboot", "poweroff", "halt", "continue"} {
		got, err := ParseThen(word)
		if err != nil || got != Then(want) || got.String() != word {
			t.Errorf("ParseThen(%q) = %v, %v", word, got, err)
		}
	}
	for want, word := range []string{"none", "network"} {
		got, err := ParseKeep(word)
		if err != nil || got != Keep(want) || got.String() != word {
			t.Errorf("ParseKeep(%q) = %v, %v", word, got, err)
		}
	}
	var e *Error
	if _, err := ParseThen("rebot"); !errors.As(err, &e) || e.Suggestion != "then=reboot" {
		t.Errorf("ParseThen(rebot): %v", err)
	}
	if _, err := ParseKeep(""); !errors.As(err, &e) || e.Argument != "keep=" {
		t.Errorf("ParseKeep of nothing: %v", err)
	}
	if s := Then(9).String(); s != "9" {
		t.Errorf("Then(9) prints as %q", s)
	}
	if Off.String() != "off" || Bounded.String() != "bounded" || Forever.String() != "forever" {
		t.Error("the words of the modes are wrong")
	}
}

func TestHowLongTheServiceIsAskedWhereTheNameIsKnown(t *testing.T) {
	for value, want := range map[string]struct {
		patience time.Duration
		counts   bool
	}{
		"2m":              {15 * time.Second, true},
		"2m,known=0s":     {0, true},
		"2m,known=40s":    {40 * time.Second, true},
		"2m,known=strict": {15 * time.Second, true},
		"2m,known=off":    {0, false},
	} {
		p, err := ParsePolicy(value)
		if err != nil {
			t.Fatal(err)
		}
		if patience, counts := p.KnownAfter(); patience != want.patience || counts != want.counts {
			t.Errorf("%s: %v, %v", value, patience, counts)
		}
	}
	if KnownStrict.String() != "strict" || KnownOff.String() != "off" || KnownGoes.String() != "goes" || RenameStop.String() != "stop" || RenameFollow.String() != "follow" {
		t.Error("the words are wrong")
	}
}

func TestAPolicyThatNoArgumentMakesIsNotMarshalled(t *testing.T) {
	for name, p := range map[string]Policy{
		"no bound":                        {Mode: Bounded},
		"an unknown mode":                 {Mode: 7},
		"an unknown then":                 {Mode: Forever, Then: 9},
		"an unknown keep":                 {Mode: Forever, Keep: 9},
		"an unknown known":                {Mode: Forever, Known: 9},
		"an unknown rename":               {Mode: Forever, Rename: 9},
		"an unknown id":                   {Mode: Forever, ID: 9},
		"known off and a patience":        {Mode: Forever, Known: KnownOff, Patience: time.Minute},
		"the default patience in full":    {Mode: Forever, Patience: DefaultPatience},
		"a patience below what is parsed": {Mode: Forever, Patience: time.Microsecond},
		"a NIC that smuggles a key":       {Mode: Forever, NICs: []string{"eth0,then=halt"}},
		"a NIC that smuggles a NIC":       {Mode: Forever, NICs: []string{"eth0,nic=eth1"}},
		"a method that smuggles one":      {Mode: Forever, Via: []string{"dhcp,via=ipv6"}},
		"more than a line's worth":        {Mode: Forever, NICs: manyNICs()},
		"a NIC that ends the line":        {Mode: Forever, NICs: []string{"eth0 off"}},
		"a wait below what is parsed":     {Mode: Bounded, Wait: time.Microsecond},
	} {
		var e *Error
		if text, err := p.MarshalText(); !errors.As(err, &e) {
			t.Errorf("%s: marshalled as %q, %v", name, text, err)
		}
	}
}

func manyNICs() (nics []string) {
	for a := 'a'; a <= 'z'; a++ {
		for b := 'a'; b <= 'z'; b++ {
			nics = append(nics, "interface"+string(a)+string(b))
		}
	}
	return nics
}

func TestAPolicyInJSONAndInAFlag(t *testing.T) {
	want := Policy{Mode: Bounded, Wait: 2 * time.Minute, Then: Halt, NICs: []string{"eth0"}}
	text, err := json.Marshal(want)
	if err != nil || string(text) != `"talos.hostname.wait=2m,then=halt,nic=eth0"` {
		t.Fatalf("in JSON: %s, %v", text, err)
	}
	var got Policy
	if err := json.Unmarshal(text, &got); err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("from JSON: %+v, %v", got, err)
	}
	for _, value := range []string{"2m,then=halt,nic=eth0", Parameter + "=2m,then=halt,nic=eth0"} {
		fs := flag.NewFlagSet("", flag.ContinueOnError)
		fs.TextVar(&got, "wait", Policy{}, "")
		if err := fs.Parse([]string{"-wait", value}); err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("-wait %s: %+v, %v", value, got, err)
		}
	}
	fs := flag.NewFlagSet("", flag.ContinueOnError)
	fs.SetOutput(io.Discard)
	fs.TextVar(&got, "wait", Policy{}, "")
	if err := fs.Parse([]string{"-wait", "90"}); err == nil || !reflect.DeepEqual(got, Default()) {
		t.Errorf("-wait 90: %+v, %v", got, err)
	}
	if err := got.UnmarshalText([]byte(Parameter)); err != nil || !reflect.DeepEqual(got, Default()) {
		t.Errorf("the name alone: %+v, %v", got, err)
	}
}

func TestThePolicysTimeRunsFromTheBeginningOfTheWait(t *testing.T) {
	began := time.Now()
	for _, tt := range []struct {
		policy Policy
		ends   bool
	}{
		{Policy{Mode: Bounded, Wait: 2 * time.Minute}, true},
		{Policy{Mode: Forever}, false},
		{Policy{Mode: Off, Wait: time.Minute}, false},
	} {
		ctx, cancel := tt.policy.WithDeadline(t.Context(), began)
		if end, ends := ctx.Deadline(); ends != tt.ends || ends && !end.Equal(began.Add(2*time.Minute)) {
			t.Errorf("%v: it ends at %v, %v", tt.policy, end, ends)
		}
		cancel()
		if ctx.Err() == nil {
			t.Errorf("%v: it cannot be cancelled", tt.policy)
		}
	}
	sooner, cancel := context.WithDeadline(t.Context(), began.Add(time.Second))
	defer cancel()
	ctx, cancel := Policy{Mode: Bounded, Wait: time.Hour}.WithDeadline(sooner, began)
	defer cancel()
	if end, _ := ctx.Deadline(); !end.Equal(began.Add(time.Second)) {
		t.Errorf("a context that ends sooner ends at %v", end)
	}
	// A wait that began so long ago that its time is up.
	ctx, cancel = Policy{Mode: Bounded, Wait: time.Minute}.WithDeadline(t.Context(), began.Add(-time.Hour))
	defer cancel()
	if !errors.Is(ctx.Err(), context.DeadlineExceeded) {
		t.Errorf("it is not over: %v", ctx.Err())
	}
}
