//go:build linux

// Package memory is what a node remembers of its name from earlier boots, and what follows from it.
//
// On later boots a node needs nobody to tell its name: Talos keeps it on the partition STATE, other systems in a file of
// ours. So an outage of the metadata service must not keep such a node down. And where the service gives another name
// than the one that is remembered, the server was renamed in the cloud, and somebody has to be told.
//
// A name is remembered with the id of the instance that had it. On another machine, one that was made from a snapshot
// say, it counts for nothing.
//
// Looking is bounded in time and size, writes nothing, and never ends a boot: what is missing, damaged, foreign or
// encrypted is "not known", said in one line. Of the files, which hold secrets, the name and the instance id are taken
// and nothing else is kept, logged or passed on.
//
// [Look] finds what a Talos remembers, [Read] what any other system does, [Decide] is the table of what follows, and
// [Search] carries it out.
package memory
