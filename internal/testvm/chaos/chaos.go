//go:build linux

// Package chaos draws scenarios at random, each from a seed that is printed and brings it back.
//
// The seeds and how many there are come from the environment, so that one line replays what another one found:
//
//	NAMETAG_CHAOS_SEED=4711 NAMETAG_CHAOS_N=1 go test -run '^Test(Chaos|Hostile)$' ./identity ./internal/testvm/chaos ./internal/node/boot
//
// The scenarios themselves are the tests of three packages: in virtual time, without a kernel, in identity; over real
// links in a namespace here, with strangers on the link or without; and as boots of virtual machines in internal/node/boot. [Dice.Argument] makes the policies of all
// of them, as the text of the kernel argument.
package chaos

import (
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"strconv"
	"testing"
	"time"
)

// The environment variables.
const (
	SeedVariable  = "NAMETAG_CHAOS_SEED"
	CountVariable = "NAMETAG_CHAOS_N"
)

// enough is after how many failures a run is given up.
const enough = 10

// Run plays n scenarios, or as many as the environment says, each as a subtest named after its seed. The first seed is
// the environment's or a new one; the others count on from it. Scenarios may run in parallel: then all of them are played,
// however many fail.
func Run(t *testing.T, n int, play func(t *testing.T, d *Dice)) {
	t.Helper()
	first := uint64(time.Now().UnixNano()) % 1_000_000_000
	if s := os.Getenv(SeedVariable); s != "" && s != "random" {
		seed, err := strconv.ParseUint(s, 10, 64)
		if err != nil {
			t.Fatalf("%s=%q is neither a number nor the word random, which is what it is without one", SeedVariable, s)
		}
		first = seed
	}
	if s := os.Getenv(CountVariable); s != "" {
		count, err := strconv.Atoi(s)
		if err != nil || count < 1 {
			t.Fatalf("%s=%q is no number of runs", CountVariable, s)
		}
		n = count
	}
	t.Logf("%d runs from seed %d", n, first)
	failures := 0
	for i := range n {
		seed := first + uint64(i)
		if !t.Run(fmt.Sprintf("seed %d", seed), func(t *testing.T) {
			d := NewDice(seed)
			defer func() {
				if t.Failed() {
					t.Logf("replay: make chaos SEED=%d N=1", seed)
				}
			}()
			play(t, d)
		}) {
			failures++
		}
		if failures == enough {
			t.Fatalf("%d failures are enough, after %d runs", failures, i+1)
		}
	}
}

// Dice are the random choices of one run.
type Dice struct{ *rand.Rand }

// NewDice returns those of a seed.
func NewDice(seed uint64) *Dice { return &Dice{rand.New(rand.NewPCG(seed, 0x6e616d65746167))} }

// Chance is true with probability p.
func (d *Dice) Chance(p float64) bool { return d.Float64() < p }

// Between is a time from one to another, each order of magnitude as likely as the others.
func (d *Dice) Between(from, to time.Duration) time.Duration {
	return time.Duration(float64(from) * math.Pow(float64(to)/float64(from), d.Float64()))
}

// Pick is one of several.
func Pick[T any](d *Dice, of ...T) T { return of[d.IntN(len(of))] }
