//go:build linux

package memory

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/nametag-boot/nametag/identity"
	"github.com/nametag-boot/nametag/internal/node/wait"
	"github.com/nametag-boot/nametag/internal/safely"
	"github.com/nametag-boot/nametag/procfs"
)

// Source is what an identity that was remembered has in place of a cloud's name, and Method in place of a path's.
const (
	Source = "known"
	Method = "memory"
)

// A Search asks the service and the node's memory at the same time, and does with both what [Decide] says. Of its fields
// only Policy must be set.
type Search struct {
	Policy procfs.Policy
	// Instance is this machine's id, by its firmware. Empty: it does not tell, and no remembered name counts.
	Instance string
	// Ask asks the service until there is a valid answer, or its context ends. It may be called again. nil: nobody is asked,
	// and what is known counts at once.
	Ask func(context.Context) (*identity.Identity, error)

	// Memory gives, once, what was found in the node's memory. Where it gives nothing, nothing is known. nil: no memory.
	Memory <-chan Recall
	// Ready is closed when asking need not wait for the memory any longer. nil: it need not wait at all.
	Ready <-chan struct{}
	// Reading reports whether there is a memory that is just being read. An answer then waits for it. nil: no.
	Reading func() bool
	// Path is closed when the first path to the service is up. nil: nobody tells.
	Path <-chan struct{}
	// Spoken says that the service may have given another name than the known one before, and was refused by rename=stop: then
	// its silence is no outage.
	Spoken bool
	// Began is when the wait began. Zero: now.
	Began time.Time
	// Warn tells what an operator should know. nil: nobody does.
	Warn func(line string)
}

// Outcome is what a search came to. The verdict is one of TakeAnswer, TakeRenamed, TakeKnown, BootOn and Explicit; with
// the last two there is no identity, since the system names itself.
type Outcome struct {
	Verdict  Verdict
	Identity *identity.Identity
	Recall   Recall // for this instance
	Unasked  bool   // the service was not asked
}

// silence is why there is no answer.
func (o Outcome) silence() string {
	if o.Unasked {
		return "the metadata service was not asked"
	}
	return "the metadata service gives none"
}

// Sentence is the outcome as one line for an operator; empty where there is nothing to say beside the name.
func (o Outcome) Sentence() string {
	switch o.Verdict {
	case TakeRenamed:
		return fmt.Sprintf("this server was renamed in the cloud: it was %s%s and is %s now, which goes to the system. "+
			"In Kubernetes that is a second Node, of which the old one stays until it is deleted, and in etcd the member is renamed. "+
			"A Talos remembers the old name too, and uses it until it has asked the service itself. rename=stop keeps a node from all this",
			o.Recall.Name.Hostname, since(o.Recall.Name.Since), o.Identity.Hostname)
	case TakeKnown:
		return fmt.Sprintf("going on under the name that this node has had%s, %s (%s): %s",
			since(o.Recall.Name.Since), o.Recall.Name.Hostname, o.Recall.From, o.silence())
	case BootOn:
		return "booting on without a name from nametag: " + o.silence() + ", and this node has booted before " +
			"and has a memory of its own that it will read itself (" + o.Recall.Why + "); known=strict waits instead"
	case Explicit:
		return fmt.Sprintf("%s names this node %s: nothing to find out", o.Recall.ExplicitFrom, o.Recall.Explicit)
	}
	return ""
}

// RenamedError says that the service gives a name that was not wanted, by rename=stop.
type RenamedError struct {
	Known, Answer string
	Err           error // what ended the search
}

// Error names both.
func (e *RenamedError) Error() string {
	return fmt.Sprintf("this server was renamed in the cloud, from %s to %s, and rename=stop says that no node starts under another name: "+
		"give it its name back, or take rename=stop away (%v)", e.Known, e.Answer, e.Err)
}

// Unwrap returns Err.
func (e *RenamedError) Unwrap() error { return e.Err }

const (
	// askAgain is how long after a refused answer the service is asked again: it may be renamed back.
	askAgain = 5 * time.Second
	// holdFor bounds how long an answer, or the end of the wait, is held for a memory that is being read.
	holdFor = 2 * time.Second
)

// answer is what a call of Ask came to.
type answer struct {
	id  *identity.Identity
	err error
}

// Run searches until there is an outcome or the policy is to be carried out; the error then says why. ctx ends with the
// policy's time. Run returns soon after, when Ask has.
func (s Search) Run(ctx context.Context) (Outcome, error) {
	r := &run{Search: s, memory: s.Memory, path: s.Path, answers: make(chan answer, 1)}
	patience, counts := s.Policy.KnownAfter()
	if !counts {
		r.memory = nil
	}
	if r.memory == nil {
		r.Reading = nil
	} else if s.Ready != nil {
		r.headStart(ctx)
	}
	if r.Began.IsZero() {
		r.Began = time.Now()
	}
	r.patience = patience
	left := time.Until(r.Began.Add(patience))
	if r.Ask == nil || left <= 0 {
		r.stage = Silent // before anybody was asked: known=0s
	}
	r.silence = time.NewTimer(left)
	defer r.silence.Stop()
	return r.loop(ctx)
}

// run is a Search under way. It belongs to one goroutine.
type run struct {
	Search
	recall   Recall
	memory   <-chan Recall // nil when it has given what it has
	path     <-chan struct{}
	patience time.Duration
	silence  *time.Timer
	stage    Stage
	refused  string // the answer that was
	answers  chan answer
	asking   context.CancelFunc // nil while nobody is asked
}

// headStart waits for the memory, as long as the caller says.
func (r *run) headStart(ctx context.Context) {
	select {
	case recall := <-r.memory:
		r.remember(recall)
	case <-r.Ready:
	case <-ctx.Done():
	}
}

// look takes over what the memory has already given. Whoever waits for several things at once hears of them in any
// order; what was there before the answer must count beside it, or an operator's name would count by luck.
func (r *run) look() {
	select {
	case recall := <-r.memory:
		r.remember(recall)
	default:
	}
}

// remember takes over what was found.
func (r *run) remember(recall Recall) {
	r.recall, r.memory = recall.For(r.Instance), nil
	if r.recall.Why != "" && !r.recall.Sealed {
		r.warn(r.recall.Why)
	}
}

func (r *run) warn(line string) {
	if r.Warn != nil {
		r.Warn(line)
	}
}

// ask asks the service.
func (r *run) ask(ctx context.Context) {
	ctx, r.asking = context.WithCancel(ctx)
	safely.Go("asking for the name", func() {
		if r.Ask == nil { // there is nobody to ask
			<-ctx.Done()
			r.answers <- answer{err: fmt.Errorf("nobody is asked, and this node's memory has no name: %w", context.Cause(ctx))}
			return
		}
		id, err := r.Ask(ctx)
		r.answers <- answer{id, err}
	}, func(err error) { r.answers <- answer{nil, err} })
}

// loop waits for what happens next, and decides.
func (r *run) loop(ctx context.Context) (Outcome, error) {
	defer func() {
		if r.asking != nil {
			r.asking()
		}
	}()
	var got answer
	var again <-chan time.Time
	begun := false
	for {
		r.look()
		switch v := Decide(r.Policy, r.recall, r.stage, name(got.id), r.refused != "" || r.Spoken); v {
		case KeepAsking:
			if !begun {
				begun = true
				r.ask(ctx)
			}
		case Refuse:
			r.refuse(got.id.Hostname)
			got, r.stage = answer{}, Asking
			again = time.After(askAgain)
		case GiveUp:
			if r.refused != "" {
				return Outcome{}, &RenamedError{Known: r.recall.Name.Hostname, Answer: r.refused, Err: got.err}
			}
			return Outcome{}, got.err
		default:
			if r.asking != nil && r.stage != Answered {
				// Whoever is asked must have put the network back. It may have had the answer meanwhile.
				r.asking()
				if late := <-r.answers; late.id != nil {
					r.asking, r.stage, got = nil, Answered, late
					continue
				}
				r.asking = nil
			}
			return r.outcome(v, got.id), nil
		}
		select {
		case recall := <-r.memory:
			r.remember(recall)
		case <-r.path:
			r.path = nil
			if r.stage == Asking {
				r.silence.Reset(r.patience)
			}
		case <-r.silence.C:
			if r.stage == Asking {
				r.stage = Silent
			}
		case got = <-r.answers:
			r.asking()
			r.asking = nil
			var elsewhere *identity.NotPresentError
			if errors.As(got.err, &elsewhere) || got.err != nil && errors.Is(ctx.Err(), context.Canceled) {
				return Outcome{}, got.err // whoever stops us wants no name
			}
			r.hold()
			r.stage = Over
			if got.err == nil {
				r.stage = Answered
			}
		case <-again:
			again = nil
			r.ask(ctx)
		case <-done(ctx, r.asking == nil && again != nil):
			again, r.stage, got = nil, Over, answer{err: context.Cause(ctx)}
		}
	}
}

// done is when ctx ends, where nobody is asked who would tell.
func done(ctx context.Context, nobody bool) <-chan struct{} {
	if !nobody {
		return nil
	}
	return ctx.Done()
}

func name(id *identity.Identity) string {
	if id == nil {
		return ""
	}
	return id.Hostname
}

// hold waits for a memory that is being read, so that what it says counts beside what the service says.
func (r *run) hold() {
	if r.memory == nil || r.Policy.Rename != procfs.RenameStop && (r.Reading == nil || !r.Reading()) {
		return
	}
	if recall, came := wait.For(r.memory, holdFor); came {
		r.remember(recall)
	}
}

func (r *run) refuse(answer string) {
	if r.refused != answer {
		r.warn((&RenamedError{Known: r.recall.Name.Hostname, Answer: answer, Err: errors.New("asking again until the time is up")}).Error())
	}
	r.refused = answer
}

func (r *run) outcome(v Verdict, id *identity.Identity) Outcome {
	o := Outcome{Verdict: v, Recall: r.recall, Unasked: r.Ask == nil}
	switch v {
	case TakeAnswer, TakeRenamed:
		o.Identity = id
	case TakeKnown:
		o.Identity = r.recall.Name.identity()
	}
	return o
}

// identity is a remembered name in the form of a found one.
func (n Name) identity() *identity.Identity {
	_, domain, _ := strings.Cut(n.Hostname, ".")
	return &identity.Identity{
		Hostname: n.Hostname, Domain: domain, InstanceID: n.InstanceID,
		Source: Source, Path: identity.PathInfo{Method: Method},
	}
}
