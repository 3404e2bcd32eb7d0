//go:build linux

package boot

// reached is called at each stage. Tests have it panic there: whatever happens, the machine must not stand there with its
// first process dead.
var reached = func(stage) {}

// A stage is a point that a boot comes to.
type stage string

// The stages of the first process, in order, and of what goes on beside it.
const (
	stageBegun     stage = "begun"
	stageDecided   stage = "decided"
	stageMounted   stage = "mounted"
	stageAsked     stage = "the worker asked"
	stageAnswered  stage = "the worker has answered"
	stageLeaving   stage = "leaving"
	stageExecuting stage = "executing"

	stageWaiting stage = "waiting for the worker"
	stageReading stage = "reading the worker's answer"

	stageWorking   stage = "the worker, working"
	stageLoading   stage = "the worker, loading drivers"
	stageTelling   stage = "the worker, telling"
	stageSearching stage = "the worker, asking the service"
)
