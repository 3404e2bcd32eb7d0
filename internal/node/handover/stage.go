//go:build linux

package handover

// reached is called at each moment. Tests have it panic there: whatever happens, the machine must not stand there with its
// first process dead or held.
var reached = func(moment) {}

// A moment is a point that a process of the handover comes to.
type moment string

// The moments: who, and how far.
const (
	stageHearing   moment = "hearing" // in any of the three
	stageTelling   moment = "the first process, telling"
	stageEnforcing moment = "enforcing"

	stageGuards    moment = "the guardian, begun"
	stageOrdered   moment = "the guardian, ordered"
	stageSettled   moment = "the guardian, settled"
	stageCommitted moment = "the guardian, committed"
	stageGiving    moment = "the guardian, giving"
	stageWatching  moment = "the guardian, watching"
	stageBinding   moment = "the guardian, having mounted"
	stageFinishing moment = "the guardian, finishing"

	stageStands    moment = "the tracer, standing by"
	stageSeizing   moment = "the tracer, seizing"
	stageFollowing moment = "the tracer, following"
	stageMounted   moment = "the tracer, at the mount"
	stageReleasing moment = "the tracer, releasing"
)
