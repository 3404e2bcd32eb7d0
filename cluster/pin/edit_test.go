package pin

import (
	"strings"
	"testing"
)

func TestSetAndClear(t *testing.T) {
	for name, c := range map[string]struct{ version, before, after, cleared string }{
		"an empty network in braces": {
			"v1.9.1",
			"machine:\n  type: worker\n  network: {}\ncluster: {}\n",
			"machine:\n  type: worker\n  network:\n    hostname: cp-1\ncluster: {}\n",
			"machine:\n  type: worker\n  network: {}\ncluster: {}\n",
		},
		"a network with other things": {
			"v1.9.1",
			"# mine\nmachine:\n    network:\n        # of the office\n        nameservers: [1.1.1.1]\n",
			"# mine\nmachine:\n    network:\n        # of the office\n        hostname: cp-1\n        nameservers: [1.1.1.1]\n",
			"# mine\nmachine:\n    network:\n        # of the office\n        nameservers: [1.1.1.1]\n",
		},
		"no network": {
			"v1.9.1", "machine:\n    type: worker\n", "machine:\n    network:\n        hostname: cp-1\n    type: worker\n",
			"machine:\n    network: {}\n    type: worker\n",
		},
		"another hostname in quotes, with a comment": {
			"v1.12.7",
			"machine:\n  network:\n    hostname: \"old\" # why\n    interfaces: []\n", "machine:\n  network:\n    hostname: cp-1 # why\n    interfaces: []\n",
			"machine:\n  network:\n    interfaces: []\n",
		},
		"the field stays the field where features.stableHostname would quarrel with the document": {
			"v1.12.7",
			"machine:\n  features:\n    stableHostname: true\n", "machine:\n  network:\n    hostname: cp-1\n  features:\n    stableHostname: true\n",
			"machine:\n  network: {}\n  features:\n    stableHostname: true\n",
		},
		"a document of its own since 1.12": {
			"v1.12.0-beta.0", "version: v1alpha1\nmachine:\n  type: worker", "version: v1alpha1\nmachine:\n  type: worker\n---\napiVersion: v1alpha1\nkind: HostnameConfig\nhostname: cp-1\n",
			"version: v1alpha1\nmachine:\n  type: worker\n---\napiVersion: v1alpha1\nkind: HostnameConfig\nauto: stable\n",
		},
		"a document in the middle": {
			"v1.12.7",
			"---\nversion: v1alpha1\nmachine: {type: worker}\n---\nkind: HostnameConfig\napiVersion: v1alpha1\nauto: stable\n---\nkind: Other\n",
			"---\nversion: v1alpha1\nmachine: {type: worker}\n---\napiVersion: v1alpha1\nkind: HostnameConfig\nhostname: cp-1\n---\nkind: Other\n",
			"---\nversion: v1alpha1\nmachine: {type: worker}\n---\napiVersion: v1alpha1\nkind: HostnameConfig\nauto: stable\n---\nkind: Other\n",
		},
	} {
		t.Run(name, func(t *testing.T) {
			after, err := Set([]byte(c.before), "cp-1", c.version)
			if err != nil || string(after) != c.after {
				t.Fatalf("%v\n%s", err, after)
			}
			if name, _, err := Hostname(after); err != nil || name != "cp-1" {
				t.Errorf("%q, %v", name, err)
			}
			cleared, err := Clear(after, "stable")
			if err != nil || string(cleared) != c.cleared {
				t.Errorf("cleared: %v\n%s", err, cleared)
			}
		})
	}
}

func TestWhatCannotBeEditedIsRefused(t *testing.T) {
	for name, c := range map[string]struct{ version, text string }{
		"no YAML":              {"v1.9.1", "machine: ["},
		"nothing":              {"v1.9.1", ""},
		"no machine":           {"v1.9.1", "cluster: {}\n"},
		"machine in braces":    {"v1.9.1", "machine: {type: worker}\n"},
		"network in braces":    {"v1.9.1", "machine:\n  network: {nameservers: [1.1.1.1]}\n"},
		"only other documents": {"v1.12.7", "kind: Other\n"},
		"a strange version":    {"latest", "machine:\n  type: worker\n"},
	} {
		t.Run(name, func(t *testing.T) {
			if after, err := Set([]byte(c.text), "cp-1", c.version); err == nil {
				t.Errorf("made of it:\n%s", after)
			}
		})
	}
}

func FuzzSet(f *testing.F) {
	f.Add("machine:\n  network: {}\n")
	f.Add("machine:\n  network:\n    hostname: 'a'\n---\nkind: HostnameConfig\nauto: off\n")
	f.Add("---\nmachine:\n  network:\n---\n\n---\nkind: X")
	f.Fuzz(func(t *testing.T, text string) {
		for _, version := range []string{"v1.9.1", "v1.12.7"} {
			after, err := Set([]byte(text), "cp-1", version)
			if err != nil {
				continue
			}
			if name, _, err := Hostname(after); err != nil || name != "cp-1" {
				t.Fatalf("%q became\n%s: %q, %v", text, after, name, err)
			}
		}
	})
}

func TestADiffHasNoLineThatDoesNotDiffer(t *testing.T) {
	diff := Diff([]byte("token: secret\nnetwork: {}\nkey: secret\n"), []byte("token: secret\nnetwork:\n  hostname: a\nkey: secret\n"))
	if strings.Contains(diff, "secret") || diff != "@@ line 2 @@\n-network: {}\n+network:\n+  hostname: a\n" {
		t.Error(diff)
	}
}
