package command

import (
	"slices"
	"strings"
	"testing"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// A value that is none, for each flag of each command that does not take any text: all end with the status of a command line
// that is not understood, before anything is asked, and print nothing on standard output.
func TestABadValueOfAnyFlagIsACommandLineThatIsNotUnderstood(t *testing.T) {
	// The text that none of them takes, and the flags that take any: names of files and of what is elsewhere.
	bad := map[string]string{
		"auto": "never", "etcd-cacert": "/nowhere", "etcd-cert": "/nowhere", "etcd-key": "/nowhere", "etcd-endpoints": "nowhere", "fail-on": "never", "kubeconfig": "/nowhere", "leader-elect": "nobody",
		"listen": "nowhere", "management-kubeconfig": "/nowhere", "output": "xml", "sources": "moon", "state-configmap": "name", "talosconfig": "/nowhere", "token-file": "/nowhere",
	}
	free := []string{"cluster", "context", "management-context", "nametag-image", "namespace", "network", "nodes", "state", "talos-context", "talos-endpoints"}
	arguments := map[string][]string{"nametag-audit accept": {"101", "--state=names.json"}, "nametag-audit capi check": {"--live"}}
	also := map[string][]string{
		"etcd-cacert": {"--etcd-endpoints=https://127.0.0.1:1"}, "etcd-cert": {"--etcd-endpoints=https://127.0.0.1:1"}, "etcd-key": {"--etcd-endpoints=https://127.0.0.1:1"},
		"leader-elect": {"--watch"}, "listen": {"--watch"},
	}
	walked := 0
	var walk func(*cobra.Command)
	walk = func(cmd *cobra.Command) {
		for _, sub := range cmd.Commands() {
			walk(sub)
		}
		if cmd.Hidden || !cmd.Runnable() {
			return
		}
		cmd.Flags().VisitAll(func(f *pflag.Flag) {
			value, told := bad[f.Name]
			text := strings.HasPrefix(f.Value.Type(), "string")
			switch {
			case f.Name == "help" || slices.Contains(free, f.Name):
				return
			case cmd.Name() == "accept" && f.Name == "kubeconfig": // for a ConfigMap, and there the names are in a file
				return
			case text && !told:
				t.Errorf("%s --%s: what does it not take?", cmd.CommandPath(), f.Name)
				return
			case !told:
				value = "nonsense"
			}
			walked++
			t.Chdir(t.TempDir()) // a file that it might find, or make
			args := slices.Concat(strings.Fields(cmd.CommandPath())[1:], arguments[cmd.CommandPath()], also[f.Name], []string{"--" + f.Name + "=" + value})
			u := aUser(t)
			u.theCloudOfTalos()
			u.talosconfig(theTalos(t, "v1.12.7", ""), "os:reader", "10.0.0.1")
			if status, out, stderr := u.runs(args...); status != exitUsage || out != "" || !strings.Contains(stderr, f.Name) && !strings.Contains(stderr, value) {
				t.Errorf("%v: exit status %d: %s%s", args, status, out, stderr)
			}
		})
	}
	walk(rootCommand(""))
	if walked < 20 {
		t.Errorf("%d flags were walked", walked)
	}
}
