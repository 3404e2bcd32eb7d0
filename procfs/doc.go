// Package procfs reads the kernel command line: the argument
// talos.hostname.wait=, which says whether and how long a boot waits for the
// node's name, and the neighbours that decide the matter without any waiting.
//
//	talos.hostname.wait=VALUE[,KEY=VALUE…]
//
// nametag.wait= is the same argument by another name, for systems that are not Talos.
// One of the two is enough; two that differ are a mistake, as below.
//
// VALUE is a duration with its unit (90s, 2m, 1h30m), forever, one of 1, on,
// true, yes or nothing at all (the default policy, see [Default]), or one of 0,
// off, false, no (do nothing).
//
//	then=  reboot | poweroff | halt | continue   when the time is up without a name
//	nic=   a MAC, an interface name or a glob     may be repeated
//	via=   linklocal | dhcp | ipv6                may be repeated; linklocal and dhcp
//	keep=  none | network                         what stays of the link
//	known= a duration | off | strict               how long the service is asked where the name is known
//	rename= follow | stop                          when the service gives a known node another name
//	id=     proven | unproven                      whether an answer counts that the firmware does not prove to be this machine's
//
// # A mistake never turns waiting off
//
// Whoever wrote the argument wanted a node that starts under its right name. So
// every function here that finds a malformed argument returns an [*Error] that
// names the offending part, with a suggestion where there is a likely one, and
// beside it the policy of [Default]. Report the error; obey the policy.
// [Off] comes from an explicit 0, off, false or no, or from no argument at all.
//
// # Where the grammar is silent
//
// The first talos.hostname.wait= on the line counts, as Talos reads its own
// arguments; later ones are not looked at. Everything is in lower case, except
// that a MAC may be written either way. A second then=, keep=, known=, rename= or id= must
// agree with the first. Where it is not on the line, and an
// argument is whose name is nearly that (talos.hostname.wiat=, or in quotes), that
// one counts as malformed: a boot under a wrong name is the harm that this is about.
// Quotes are not taken away, as siderolabs/go-procfs, and so Talos, does not.
//
// Nothing here keeps state; all functions may be called concurrently.
package procfs
