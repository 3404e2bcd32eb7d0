//go:build linux

package memory

import (
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/nametag-boot/nametag/identity"
	"github.com/nametag-boot/nametag/procfs"
)

var known = Recall{Name: Name{Hostname: "web-1", InstanceID: "42"}, From: "STATE"}

// service is a metadata service in virtual time: at each of the times, counted from the first call, its answer changes.
type service struct {
	names  []string // "": none
	at     []time.Duration
	began  time.Time
	asked  int
	undone int
}

func (s *service) ask(ctx context.Context) (*identity.Identity, error) {
	if s.asked++; s.asked == 1 {
		s.began = time.Now()
	}
	defer func() { s.undone++ }()
	for {
		name := ""
		for i, at := range s.at {
			if time.Since(s.began) >= at {
				name = s.names[i]
			}
		}
		if name != "" {
			return &identity.Identity{Hostname: name, InstanceID: "42", Source: "hetzner"}, nil
		}
		select {
		case <-time.After(50 * time.Millisecond):
		case <-ctx.Done():
			return nil, &identity.TimeoutError{Cause: context.Cause(ctx)}
		}
	}
}

func TestSearch(t *testing.T) {
	down := &service{}
	for _, tt := range []struct {
		name    string
		args    string
		wait    time.Duration // of the policy; 0: two minutes
		memory  Recall
		after   time.Duration // when the memory is there
		path    time.Duration // when a path is up; 0: never
		service *service
		want    Verdict
		called  string
		took    time.Duration // roughly
		err     error
	}{
		{name: "the service answers, nothing is known", service: &service{names: []string{"web-1"}, at: []time.Duration{time.Second}}, want: TakeAnswer, called: "web-1", took: time.Second},
		{name: "the service answers what is known", memory: known, service: &service{names: []string{"web-1"}, at: []time.Duration{time.Second}}, want: TakeAnswer, called: "web-1", took: time.Second},
		{name: "the service is down, the name is known", memory: known, service: down, want: TakeKnown, called: "web-1", took: 15 * time.Second},
		{name: "counted from the first path", memory: known, path: 4 * time.Second, service: down, want: TakeKnown, called: "web-1", took: 19 * time.Second},
		{name: "a path that comes after that is too late", memory: known, path: 16 * time.Second, service: down, want: TakeKnown, called: "web-1", took: 15 * time.Second},
		{name: "known=40s", args: ",known=40s", memory: known, service: down, want: TakeKnown, called: "web-1", took: 40 * time.Second},
		{name: "known=0s", args: ",known=0s", memory: known, service: down, want: TakeKnown, called: "web-1"},
		{name: "the service is late, but not too late", memory: known, service: &service{names: []string{"web-1"}, at: []time.Duration{14 * time.Second}}, want: TakeAnswer, called: "web-1", took: 14 * time.Second},
		{name: "the policy's time is up before known=", wait: 5 * time.Second, memory: known, service: down, want: TakeKnown, called: "web-1", took: 5 * time.Second},
		{name: "the disk comes a minute late", memory: known, after: time.Minute, service: down, want: TakeKnown, called: "web-1", took: time.Minute},
		{name: "known=off", args: ",known=off", memory: known, service: down, err: context.DeadlineExceeded, took: 2 * time.Minute},
		{name: "nothing known, service down", service: down, err: context.DeadlineExceeded, took: 2 * time.Minute},
		{name: "another instance's name", memory: Recall{Name: Name{Hostname: "web-1", InstanceID: "7"}, From: "STATE"}, service: down, err: context.DeadlineExceeded, took: 2 * time.Minute},
		{name: "encrypted, service down", memory: Recall{Sealed: true, Why: "LUKS"}, service: down, want: BootOn, took: 15 * time.Second},
		{name: "encrypted, known=strict", args: ",known=strict", memory: Recall{Sealed: true, Why: "LUKS"}, service: down, err: context.DeadlineExceeded, took: 2 * time.Minute},
		{name: "explicit", memory: Recall{Explicit: "by-hand", ExplicitFrom: "config.yaml"}, service: down, want: Explicit},
		{name: "explicit, and the disk is late", memory: Recall{Explicit: "by-hand", ExplicitFrom: "config.yaml"}, after: 3 * time.Second, service: down, want: Explicit, took: 3 * time.Second},
		{name: "renamed", memory: known, service: &service{names: []string{"web-2"}, at: []time.Duration{time.Second}}, want: TakeRenamed, called: "web-2", took: time.Second},
		{name: "renamed, rename=stop", args: ",rename=stop", memory: known, service: &service{names: []string{"web-2"}, at: []time.Duration{time.Second}}, err: &RenamedError{}, took: 2 * time.Minute},
		{name: "renamed and back, rename=stop", args: ",rename=stop", memory: known, service: &service{names: []string{"web-2", "web-1"}, at: []time.Duration{time.Second, 30 * time.Second}}, want: TakeAnswer, called: "web-1", took: 30 * time.Second},
		{name: "renamed, then down, rename=stop", args: ",rename=stop", memory: known, service: &service{names: []string{"web-2", ""}, at: []time.Duration{time.Second, 3 * time.Second}}, err: &RenamedError{}, took: 2 * time.Minute},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p, err := procfs.ParsePolicy("2m" + tt.args)
				if err != nil {
					t.Fatal(err)
				}
				wait := 2 * time.Minute
				if tt.wait > 0 {
					wait = tt.wait
				}
				ctx, cancel := context.WithTimeout(t.Context(), wait)
				defer cancel()
				memory, path, ready := make(chan Recall, 1), make(chan struct{}), make(chan struct{})
				if tt.after == 0 {
					memory <- tt.memory
				}
				time.AfterFunc(100*time.Millisecond, func() { close(ready) })
				time.AfterFunc(tt.after, func() {
					if tt.after > 0 {
						memory <- tt.memory
					}
				})
				if tt.path > 0 {
					time.AfterFunc(tt.path, func() { close(path) })
				}
				svc := *tt.service
				began := time.Now()
				o, err := Search{Policy: p, Instance: "42", Ask: svc.ask, Memory: memory, Ready: ready, Path: path}.Run(ctx)
				took := time.Since(began)
				if svc.asked != svc.undone {
					t.Errorf("asked %d times, of which %d have ended", svc.asked, svc.undone)
				}
				if took < tt.took || took > tt.took+6*time.Second {
					t.Errorf("it took %v, not %v", took, tt.took)
				}
				if tt.err != nil {
					var renamed *RenamedError
					same := errors.Is(err, tt.err) || errors.As(tt.err, &renamed) && errors.As(err, &renamed)
					if err == nil || !same {
						t.Errorf("the error is %v, not %v", err, tt.err)
					}
					return
				}
				if err != nil || o.Verdict != tt.want || name(o.Identity) != tt.called {
					t.Errorf("%v %q, %v; want %v %q", o.Verdict, name(o.Identity), err, tt.want, tt.called)
				}
				if o.Verdict == TakeKnown && (o.Identity.Source != Source || o.Identity.InstanceID != "42") {
					t.Errorf("the known identity is %+v", o.Identity)
				}
				if said := o.Sentence(); (said == "") != (o.Verdict == TakeAnswer) || strings.Contains(said, "%!") {
					t.Errorf("it says %q", said)
				}
				if tt.after == 0 && (o.Verdict == Explicit || strings.Contains(tt.args, "known=0s")) && svc.asked > 0 {
					t.Error("the service was asked")
				}
			})
		})
	}
}

// An answer that comes while the memory is being read waits for it; one that comes while there is no disk does not.
func TestAnAnswerWaitsForAMemoryThatIsBeingRead(t *testing.T) {
	for _, reading := range []bool{true, false} {
		synctest.Test(t, func(t *testing.T) {
			memory := make(chan Recall, 1)
			time.AfterFunc(time.Second, func() { memory <- known })
			o, err := Search{
				Policy: procfs.Default(), Instance: "42", Memory: memory, Reading: func() bool { return reading },
				Ask: (&service{names: []string{"web-2"}, at: []time.Duration{0}}).ask,
			}.Run(t.Context())
			want := TakeAnswer
			if reading {
				want = TakeRenamed
			}
			if err != nil || o.Verdict != want {
				t.Errorf("reading %v: %v, %v", reading, o.Verdict, err)
			}
			time.Sleep(time.Second)
		})
	}
}

// Where nobody is asked, what is known counts at once, also if it comes late, and what is not known is an error.
func TestWithNobodyToAskOnlyTheMemoryCounts(t *testing.T) {
	for _, tt := range []struct {
		name   string
		args   string
		memory Recall
		after  time.Duration
		want   Verdict
		none   bool
	}{
		{name: "the name is known", memory: known, want: TakeKnown},
		{name: "the disk is late", memory: known, after: 20 * time.Second, want: TakeKnown},
		{name: "rename=stop", args: ",rename=stop", memory: known, want: TakeKnown},
		{name: "encrypted", memory: Recall{Sealed: true, Why: "LUKS"}, want: BootOn},
		{name: "explicit", memory: Recall{Explicit: "by-hand", ExplicitFrom: "config.yaml"}, want: Explicit},
		{name: "another instance's", memory: Recall{Name: Name{Hostname: "web-1", InstanceID: "7"}, From: "STATE"}, none: true},
		{name: "encrypted, known=strict", args: ",known=strict", memory: Recall{Sealed: true, Why: "LUKS"}, none: true},
		{name: "known=off", args: ",known=off", memory: known, none: true},
		{name: "nothing", none: true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p, err := procfs.ParsePolicy("2m" + tt.args)
				if err != nil {
					t.Fatal(err)
				}
				ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
				defer cancel()
				memory := make(chan Recall, 1)
				time.AfterFunc(tt.after, func() { memory <- tt.memory })
				began := time.Now()
				o, err := Search{Policy: p, Instance: "42", Memory: memory}.Run(ctx)
				if took := time.Since(began); tt.none {
					if !errors.Is(err, context.DeadlineExceeded) || took != time.Minute {
						t.Errorf("%v, %v after %v", o.Verdict, err, took)
					}
					return
				} else if err != nil || o.Verdict != tt.want || took != tt.after {
					t.Errorf("%v, %v after %v; want %v after %v", o.Verdict, err, took, tt.want, tt.after)
				}
				if said := o.Sentence(); o.Verdict != Explicit && !strings.Contains(said, "the metadata service was not asked") {
					t.Errorf("it says %q", said)
				}
			})
		})
	}
}

// A memory that never comes, and one that hangs, hold nothing up for ever.
func TestAMemoryThatHangsHoldsNothingUpForEver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		began := time.Now()
		o, err := Search{
			Policy: procfs.Default(), Instance: "42", Memory: make(chan Recall), Reading: func() bool { return true },
			Ask: (&service{names: []string{"web-1"}, at: []time.Duration{0}}).ask,
		}.Run(t.Context())
		if err != nil || o.Verdict != TakeAnswer || time.Since(began) > 2*holdFor {
			t.Errorf("%v, %v after %v", o.Verdict, err, time.Since(began))
		}
	})
}

func TestAMachineOfAnotherCloudIsNotAskedForItsMemory(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		memory := make(chan Recall, 1)
		_, err := Search{
			Policy: procfs.Default(), Instance: "42", Memory: memory,
			Ask: func(context.Context) (*identity.Identity, error) { return nil, &identity.NotPresentError{} },
		}.Run(t.Context())
		var elsewhere *identity.NotPresentError
		if !errors.As(err, &elsewhere) {
			t.Errorf("%v", err)
		}
	})
}

func TestASearchThatIsStoppedComesUpWithNoName(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		memory := make(chan Recall, 1)
		memory <- known
		ctx, cancel := context.WithCancel(t.Context())
		time.AfterFunc(time.Second, cancel)
		o, err := Search{Policy: procfs.Default(), Instance: "42", Memory: memory, Ask: (&service{}).ask}.Run(ctx)
		if !errors.Is(err, context.Canceled) {
			t.Errorf("%v, %v", o, err)
		}
	})
}

// Both are there at the same moment, and what was remembered counts each time, not by luck.
func TestAnAnswerNeverOvertakesAMemoryThatIsThere(t *testing.T) {
	for _, tt := range []struct {
		memory Recall
		want   Verdict
	}{{known, TakeRenamed}, {Recall{Explicit: "by-hand", ExplicitFrom: "config.yaml"}, Explicit}} {
		for range 100 {
			memory, answers := make(chan Recall, 1), make(chan answer, 1)
			memory <- tt.memory
			answers <- answer{id: &identity.Identity{Hostname: "web-2", InstanceID: "42", Source: "hetzner"}}
			asking := func(ctx context.Context) (*identity.Identity, error) { // its answer is there already
				<-ctx.Done()
				return nil, ctx.Err()
			}
			r := &run{
				Search: Search{Policy: procfs.Default(), Instance: "42", Ask: asking},
				memory: memory, answers: answers, silence: time.NewTimer(time.Hour),
			}
			if o, err := r.loop(t.Context()); err != nil || o.Verdict != tt.want {
				t.Fatalf("%v, %v; wanted: %v", o.Verdict, err, tt.want)
			}
		}
	}
}
