// Package audit compares the names that one machine has in the cloud, in etcd, in Kubernetes and in Cluster API, and says
// where they do not agree, how that came about and what to do, in an order that never costs etcd its quorum.
//
// It is pure: what was seen goes in as a [Snapshot], what it means comes out as a [Report]. Package source reads the
// snapshots from the real things.
//
// Who belongs to whom is decided by the server's id (a providerID has it) and, where there is none, by address. It is
// never decided by name: names are what is in question.
package audit
