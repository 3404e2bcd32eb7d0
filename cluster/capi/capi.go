// Package capi reads manifests of Cluster API with Talos on Hetzner Cloud, and says which name every node will get, from where,
// and what is wrong with that: before a server is made.
package capi

import (
	"bytes"
	_ "embed"
	"errors"
	"fmt"
	"io"
	"path"
	"slices"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"

	"github.com/nametag-boot/nametag/cluster/audit"
)

// A Rule is a kind of finding. Its id stays the same from version to version.
type Rule struct {
	ID      string
	Meaning string
}

// The rules.
const (
	MachineName       = "capi-machine-name"
	UnknownSource     = "capi-unknown-source"
	SharedHostname    = "capi-shared-hostname"
	JSONPatches       = "capi-json-patches"
	AutoConflicts     = "capi-auto-conflicts"
	DocumentTooNew    = "capi-document-too-new"
	ImageWithout      = "capi-image-without-nametag"
	ArgumentMissing   = "capi-argument-missing"
	Rdinit            = "capi-rdinit-in-config"
	TemplateMissing   = "capi-template-missing"
	sourceMachine     = "MachineName"
	sourceInfra       = "InfrastructureName"
	argument          = "talos.hostname.wait"
	documentSince     = 12 // the minor version of Talos 1 that has HostnameConfig
	bootstrapGroup    = "bootstrap.cluster.x-k8s.io"
	controlPlaneGroup = "controlplane.cluster.x-k8s.io"
)

// Rules are all of them.
func Rules() []Rule {
	return []Rule{
		{MachineName, "hostname.source is MachineName: the node is named after its Machine, and the cloud controller looks for a server of that name."},
		{UnknownSource, "hostname.source has a value that the bootstrap provider does not know."},
		{SharedHostname, "A hostname in a template outranks every other, and all machines made of it get the same one."},
		{JSONPatches, "RFC 6902 patches are refused where the machine configuration has several documents, as it has since Talos 1.12."},
		{AutoConflicts, "A HostnameConfig with auto is merged with one that has a hostname, and Talos refuses both at once."},
		{DocumentTooNew, "A HostnameConfig is given to a Talos that does not know it."},
		{ImageWithout, "The name is left to the platform, and the image is not known to have nametag in it: the first boot is a race."},
		{ArgumentMissing, "After an upgrade the kernel argument is taken from the machine configuration, which does not have it."},
		{Rdinit, "rdinit= in the machine configuration outlives the image that it is for: an image without the helper then does not boot."},
		{TemplateMissing, "A template that is referred to is not among the manifests, so it was not looked at."},
	}
}

// A Finding is something that is wrong.
type Finding struct {
	Rule     string         `json:"rule"`
	Severity audit.Severity `json:"severity"`
	File     string         `json:"file"`
	Line     int            `json:"line"`
	Column   int            `json:"column"`
	Object   string         `json:"object"`
	Message  string         `json:"message"`
	// Fix repairs it; nil where a person must decide.
	Fix *Fix `json:"fix,omitempty"`
}

// A Fix replaces lines.
type Fix struct {
	// From is the first line that is replaced, Count how many are; 0 inserts before From.
	From  int    `json:"from"`
	Count int    `json:"count"`
	Text  string `json:"text"` // with its newline
}

// A Name is what the machines made of one configuration will be called.
type Name struct {
	File   string `json:"file"`
	Line   int    `json:"line"`
	Object string `json:"object"`
	Talos  string `json:"talosVersion,omitempty"`
	Name   string `json:"name"` // what it will be, in words
	From   string `json:"from"` // where it comes from
	Image  string `json:"image,omitempty"`
}

// A Result is what was read and found.
type Result struct {
	Schema   string    `json:"schema"`
	Names    []Name    `json:"names"`
	Findings []Finding `json:"findings"`
}

// Schema names the form of a Result.
const Schema = "nametag.capi/v1"

//go:embed schema.json
var schemaJSON []byte

// JSONSchema is the form of a Result as a JSON Schema.
func JSONSchema() []byte { return slices.Clone(schemaJSON) }

// Options are what the manifests cannot say.
type Options struct {
	// Images are patterns (as path.Match) of the images that have nametag in them. Empty: those with nametag in their name.
	Images []string
}

func (o Options) hasNametag(image string) bool {
	if len(o.Images) == 0 {
		return strings.Contains(image, "nametag")
	}
	return slices.ContainsFunc(o.Images, func(pattern string) bool {
		ok, err := path.Match(pattern, image)
		return ok && err == nil
	})
}

// A Checker takes in files and then says what is in them.
type Checker struct {
	Options
	files   map[string][]byte
	objects []object
	result  Result
}

// An object is one of the manifests.
type object struct {
	file string
	root *yaml.Node
}

func (o object) text(keys ...string) string {
	if n := at(o.root, keys...); n != nil && n.Kind == yaml.ScalarNode {
		return n.Value
	}
	return ""
}

func (o object) group() string {
	group, _, _ := strings.Cut(o.text("apiVersion"), "/")
	return group
}

func (o object) name() string { return o.text("metadata", "name") }

func (o object) label() string {
	if ns := o.text("metadata", "namespace"); ns != "" {
		return o.text("kind") + " " + ns + "/" + o.name()
	}
	return o.text("kind") + " " + o.name()
}

// at is the node at a path of keys, nil where there is none. Aliases are followed.
func at(n *yaml.Node, keys ...string) *yaml.Node {
	for _, key := range keys {
		n = child(n, key)
	}
	return n
}

func child(n *yaml.Node, key string) *yaml.Node {
	if n != nil && n.Kind == yaml.AliasNode {
		n = n.Alias
	}
	if n == nil || n.Kind != yaml.MappingNode {
		return nil
	}
	for i := 0; i+1 < len(n.Content); i += 2 {
		if n.Content[i].Value == key {
			return n.Content[i+1]
		}
	}
	return nil
}

// keyOf is the node of the key itself.
func keyOf(n *yaml.Node, key string) *yaml.Node {
	for i := 0; n != nil && i+1 < len(n.Content); i += 2 {
		if n.Content[i].Value == key {
			return n.Content[i]
		}
	}
	return nil
}

// Add takes in a file of any number of documents, lists among them.
func (c *Checker) Add(file string, text []byte) error {
	if c.files == nil {
		c.files = map[string][]byte{}
	}
	c.files[file] = text
	decoder := yaml.NewDecoder(bytes.NewReader(text))
	for {
		var doc yaml.Node
		err := decoder.Decode(&doc)
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("%s: %w", file, err)
		}
		if len(doc.Content) == 1 {
			c.collect(file, doc.Content[0])
		}
	}
}

// collect takes in an object, or those of a list. A list in a list is none: it could have itself in it.
func (c *Checker) collect(file string, root *yaml.Node) {
	o := object{file, root}
	if items := at(root, "items"); strings.HasSuffix(o.text("kind"), "List") && items != nil && items.Kind == yaml.SequenceNode {
		for _, item := range items.Content {
			c.objects = append(c.objects, object{file, item})
		}
		return
	}
	c.objects = append(c.objects, o)
}

// Check looks at everything that was taken in.
func (c *Checker) Check() *Result {
	c.result = Result{Schema: Schema, Names: []Name{}, Findings: []Finding{}}
	for _, o := range c.objects {
		switch {
		case o.group() == controlPlaneGroup && o.text("kind") == "TalosControlPlane":
			c.config(o, at(o.root, "spec", "controlPlaneConfig", "controlplane"), c.referred(o, at(o.root, "spec", "infrastructureTemplate")), "control-plane machine")
		case o.group() == controlPlaneGroup && o.text("kind") == "TalosControlPlaneTemplate":
			c.config(o, at(o.root, "spec", "template", "spec", "controlPlaneConfig", "controlplane"), c.ofClass(o), "control-plane machine")
		case o.group() == bootstrapGroup && o.text("kind") == "TalosConfigTemplate":
			c.config(o, at(o.root, "spec", "template", "spec"), c.ofWorkers(o), "machine")
		case o.group() == bootstrapGroup && o.text("kind") == "TalosConfig":
			c.config(o, at(o.root, "spec"), nil, "machine")
		}
	}
	slices.SortStableFunc(c.result.Findings, func(a, b Finding) int {
		if a.File != b.File {
			return strings.Compare(a.File, b.File)
		}
		return a.Line - b.Line
	})
	return &c.result
}

// find finds what a reference of an object names: it is in the object's namespace. A manifest that does not say its own may be meant for any.
func (c *Checker) find(by object, kind, name string) *object {
	for i, o := range c.objects {
		if o.text("kind") == kind && o.name() == name && o.near(by) {
			return &c.objects[i]
		}
	}
	return nil
}

func (o object) near(other object) bool {
	a, b := o.text("metadata", "namespace"), other.text("metadata", "namespace")
	return a == b || a == "" || b == ""
}

// referred finds the infrastructure template that a reference names.
func (c *Checker) referred(by object, ref *yaml.Node) *object {
	if ref == nil {
		return nil
	}
	r := object{by.file, ref}
	if !strings.HasPrefix(r.text("kind"), "HCloud") {
		return nil // another cloud's, or a machine that is no cloud server: names are not ours to judge
	}
	found := c.find(by, r.text("kind"), r.text("name"))
	if found == nil {
		c.add(by, ref, TemplateMissing, audit.Info, nil, "%s %s is not among the manifests: its image was not looked at", r.text("kind"), r.text("name"))
	}
	return found
}

// ofWorkers finds the infrastructure template of the machines that a bootstrap template is for, by MachineDeployment or ClusterClass.
func (c *Checker) ofWorkers(template object) *object {
	for _, o := range c.objects {
		if !o.near(template) {
			continue
		}
		switch o.text("kind") {
		case "MachineDeployment", "MachineSet":
			spec := at(o.root, "spec", "template", "spec")
			if ref := at(spec, "bootstrap", "configRef"); ref != nil && (object{o.file, ref}).text("name") == template.name() {
				return c.referred(o, at(spec, "infrastructureRef"))
			}
		case "ClusterClass":
			classes := at(o.root, "spec", "workers", "machineDeployments")
			for i := 0; classes != nil && i < len(classes.Content); i++ {
				class := classes.Content[i]
				if base := at(class, "template"); base != nil { // before v1beta2 they stand in there
					class = base
				}
				if refName(at(class, "bootstrap")) == template.name() {
					return c.referredByClass(o, at(class, "infrastructure"))
				}
			}
		}
	}
	return nil
}

// ofClass finds the infrastructure template of a control plane's template.
func (c *Checker) ofClass(template object) *object {
	for _, o := range c.objects {
		if o.text("kind") == "ClusterClass" && o.near(template) && refName(at(o.root, "spec", "controlPlane")) == template.name() {
			return c.referredByClass(o, at(o.root, "spec", "controlPlane", "machineInfrastructure"))
		}
	}
	return nil
}

// refOf is a ClusterClass' reference: ref, and templateRef since v1beta2.
func refOf(n *yaml.Node) *yaml.Node {
	if r := child(n, "templateRef"); r != nil {
		return r
	}
	return child(n, "ref")
}

func refName(n *yaml.Node) string {
	if name := child(refOf(n), "name"); name != nil {
		return name.Value
	}
	return ""
}

func (c *Checker) referredByClass(o object, n *yaml.Node) *object { return c.referred(o, refOf(n)) }

func (c *Checker) add(o object, where *yaml.Node, rule string, severity audit.Severity, fix *Fix, format string, args ...any) {
	f := Finding{Rule: rule, Severity: severity, File: o.file, Object: o.label(), Message: fmt.Sprintf(format, args...), Fix: fix}
	if where != nil {
		f.Line, f.Column = where.Line, where.Column
	}
	c.result.Findings = append(c.result.Findings, f)
}

// minor reads v1.12, v1.12.3, 1.12.0-beta.0. Nothing is what the provider takes then: its newest.
func minor(version string) (int, bool) {
	parts := strings.SplitN(strings.TrimPrefix(version, "v"), ".", 3)
	if len(parts) < 2 || parts[0] != "1" {
		return 0, false
	}
	n, err := strconv.Atoi(parts[1])
	return n, err == nil
}
