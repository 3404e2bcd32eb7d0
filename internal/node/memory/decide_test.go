//go:build linux

package memory

import (
	"testing"

	"github.com/nametag-boot/nametag/procfs"
)

// The whole table: what the node knows, what the service says, and the argument's two keys.
func TestWhatFollows(t *testing.T) {
	const same, other = "web-1", "web-2"
	recalls := map[string]Recall{
		"nothing":  {},
		"known":    {Name: Name{Hostname: same, InstanceID: "42"}, From: "STATE"},
		"sealed":   {Sealed: true, Why: "it is encrypted"},
		"explicit": {Explicit: "by-hand", ExplicitFrom: "the machine configuration", Name: Name{Hostname: same, InstanceID: "42"}},
	}
	for _, row := range []struct {
		recall string
		args   string
		// by stage: asking, silent, over, the same name, another name
		want [5]Verdict
	}{
		{"nothing", "", [5]Verdict{KeepAsking, KeepAsking, GiveUp, TakeAnswer, TakeAnswer}},
		{"known", "", [5]Verdict{KeepAsking, TakeKnown, TakeKnown, TakeAnswer, TakeRenamed}},
		{"sealed", "", [5]Verdict{KeepAsking, BootOn, BootOn, TakeAnswer, TakeAnswer}},
		{"explicit", "", [5]Verdict{Explicit, Explicit, Explicit, Explicit, Explicit}},

		{"nothing", ",known=0s", [5]Verdict{KeepAsking, KeepAsking, GiveUp, TakeAnswer, TakeAnswer}},
		{"known", ",known=0s", [5]Verdict{KeepAsking, TakeKnown, TakeKnown, TakeAnswer, TakeRenamed}},

		{"nothing", ",known=strict", [5]Verdict{KeepAsking, KeepAsking, GiveUp, TakeAnswer, TakeAnswer}},
		{"known", ",known=strict", [5]Verdict{KeepAsking, TakeKnown, TakeKnown, TakeAnswer, TakeRenamed}},
		{"sealed", ",known=strict", [5]Verdict{KeepAsking, KeepAsking, GiveUp, TakeAnswer, TakeAnswer}},
		{"explicit", ",known=strict", [5]Verdict{Explicit, Explicit, Explicit, Explicit, Explicit}},

		// As before there was a memory.
		{"nothing", ",known=off", [5]Verdict{KeepAsking, KeepAsking, GiveUp, TakeAnswer, TakeAnswer}},
		{"known", ",known=off", [5]Verdict{KeepAsking, KeepAsking, GiveUp, TakeAnswer, TakeAnswer}},
		{"sealed", ",known=off", [5]Verdict{KeepAsking, KeepAsking, GiveUp, TakeAnswer, TakeAnswer}},
		{"explicit", ",known=off", [5]Verdict{KeepAsking, KeepAsking, GiveUp, TakeAnswer, TakeAnswer}},

		{"nothing", ",rename=stop", [5]Verdict{KeepAsking, KeepAsking, GiveUp, TakeAnswer, TakeAnswer}},
		{"known", ",rename=stop", [5]Verdict{KeepAsking, TakeKnown, TakeKnown, TakeAnswer, Refuse}},
		{"sealed", ",rename=stop", [5]Verdict{KeepAsking, BootOn, BootOn, TakeAnswer, TakeAnswer}},
		{"known", ",known=strict,rename=stop", [5]Verdict{KeepAsking, TakeKnown, TakeKnown, TakeAnswer, Refuse}},
	} {
		p, err := procfs.ParsePolicy("2m" + row.args)
		if err != nil {
			t.Fatal(err)
		}
		for i, at := range []struct {
			stage  Stage
			answer string
		}{{Asking, ""}, {Silent, ""}, {Over, ""}, {Answered, same}, {Answered, other}} {
			if got := Decide(p, recalls[row.recall], at.stage, at.answer, false); got != row.want[i] {
				t.Errorf("%s%s, stage %d %s: %v, want %v", row.recall, row.args, at.stage, at.answer, got, row.want[i])
			}
		}
	}
}

// A service that has given a name that was refused is not one that is down.
func TestAfterARefusalTheKnownNameCountsForNothing(t *testing.T) {
	p := procfs.Policy{Mode: procfs.Forever, Rename: procfs.RenameStop}
	r := Recall{Name: Name{Hostname: "web-1", InstanceID: "42"}}
	for stage, want := range map[Stage]Verdict{Asking: KeepAsking, Silent: KeepAsking, Over: GiveUp} {
		if got := Decide(p, r, stage, "", true); got != want {
			t.Errorf("stage %d: %v, want %v", stage, got, want)
		}
	}
	if got := Decide(p, r, Answered, "web-1", true); got != TakeAnswer {
		t.Errorf("renamed back: %v", got)
	}
}

func TestAnotherCaseIsNoOtherName(t *testing.T) {
	r := Recall{Name: Name{Hostname: "Web-1.Example.com", InstanceID: "42"}}
	if got := Decide(procfs.Default(), r, Answered, "web-1.example.com", false); got != TakeAnswer {
		t.Errorf("%v", got)
	}
}

func TestANameOfAnotherInstanceCountsForNothing(t *testing.T) {
	r := Recall{Name: Name{Hostname: "web-1", InstanceID: "42"}, From: "STATE"}
	if got := r.For("42"); !got.Known() || got.Why != "" {
		t.Errorf("its own: %+v", got)
	}
	for _, instance := range []string{"43", ""} {
		if got := r.For(instance); got.Known() || got.Why == "" {
			t.Errorf("on %q: %+v", instance, got)
		}
	}
	if got := (Recall{}).For("42"); got != (Recall{}) {
		t.Errorf("nothing: %+v", got)
	}
	sealed := Recall{Sealed: true, Why: "LUKS"}
	if got := sealed.For("42"); got != sealed {
		t.Errorf("sealed: %+v", got)
	}
}
