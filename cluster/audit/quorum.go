package audit

import (
	"fmt"
	"slices"
)

// A Quorum is how many members etcd has, needs and can spare. Learners do not vote.
type Quorum struct {
	Voting int `json:"voting"`
	// Up are those that answer as healthy; where nobody asked them, those that have started.
	Up     int `json:"up"`
	Needed int `json:"needed"`
}

// Spare is how many may go away now, negative where etcd has no quorum.
func (q Quorum) Spare() int { return q.Up - q.Needed }

// Holds reports whether there is a leader to be had.
func (q Quorum) Holds() bool { return q.Up >= q.Needed }

func (q Quorum) String() string {
	return fmt.Sprintf("%d of %d voting members up, %d needed", q.Up, q.Voting, q.Needed)
}

// QuorumOf counts.
func QuorumOf(members []Member) Quorum {
	var q Quorum
	for _, m := range members {
		if m.Learner {
			continue
		}
		q.Voting++
		if m.up() {
			q.Up++
		}
	}
	q.Needed = q.Voting/2 + 1
	return q
}

// up: a member without a name has not started.
func (m Member) up() bool { return m.Name != "" && m.Health != Unhealthy }

// after is the quorum while, or after, the act is done. Of a restart it is the worst moment.
func after(members []Member, act Act) Quorum {
	left := slices.Clone(members)
	for i := range left {
		if left[i].ID != act.Member {
			continue
		}
		if act.Verb == Remove {
			left = slices.Delete(left, i, i+1)
		} else {
			left[i].Health = Unhealthy
		}
		break
	}
	return QuorumOf(left)
}

// Safe reports whether etcd keeps its quorum while and after the act is done, if it has it now. That a cluster of one
// member is away while this restarts is its operator's daily bread: no member is lost.
func Safe(members []Member, act Act) bool {
	if act.Verb == Restart && QuorumOf(members).Voting == 1 {
		return true
	}
	q := after(members, act)
	return q.Voting > 0 && q.Holds()
}
