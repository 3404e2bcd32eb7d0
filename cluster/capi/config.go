package capi

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"

	"github.com/nametag-boot/nametag/cluster/audit"
)

// A hint is a piece of the machine configuration, wherever it was written.
type hint struct {
	value string
	where *yaml.Node // of the manifest
}

// patched is what the patches of one configuration say that matters for names.
type patched struct {
	hostname  []hint // machine.network.hostname, or a HostnameConfig's hostname
	auto      []hint // a HostnameConfig's auto
	documents []hint // the documents HostnameConfig
	arguments []hint // machine.install.extraKernelArgs
}

// config looks at one configuration of the bootstrap provider. infra is the template of the servers that it is for, nil where it is
// not known.
func (c *Checker) config(o object, spec *yaml.Node, infra *object, what string) {
	if spec == nil || spec.Kind != yaml.MappingNode {
		return
	}
	s := object{o.file, spec}
	version, source := s.text("talosVersion"), s.text("hostname", "source")
	v, known := minor(version)
	documents := !known || v >= documentSince // without a version the provider takes its newest
	p := c.patches(o, spec)

	name := Name{File: o.file, Line: spec.Line, Object: o.label(), Talos: version}
	if infra != nil {
		name.Image = infra.text("spec", "template", "spec", "imageName")
		if name.Image == "" {
			name.Image = infra.text("spec", "template", "spec", "imageURL")
		}
	}
	sourceNode := at(spec, "hostname", "source")
	switch {
	case len(p.hostname) > 0:
		name.Name, name.From = p.hostname[0].value, "a hostname in the machine configuration, which outranks all others"
		c.add(o, p.hostname[0].where, SharedHostname, audit.Critical, nil,
			"every %s made of this is named %s, for a hostname in the machine configuration outranks all others: take it away", what, p.hostname[0].value)
	case source == sourceInfra:
		name.Name, name.From = "the server's own", "the bootstrap provider: the name of the HCloudMachine is the server's"
	case source == sourceMachine:
		name.Name, name.From = "the Machine's, not the server's", "the bootstrap provider"
		c.add(o, sourceNode, MachineName, audit.Critical, c.rewrite(o, sourceNode, sourceInfra),
			"every %s is named after its Machine, and the server after its HCloudMachine: the cloud controller finds no server of the node's name; %s makes them one", what, sourceInfra)
	case source != "":
		name.Name, name.From = "unknown", "hostname.source "+source
		c.add(o, sourceNode, UnknownSource, audit.Critical, nil, "%q is no source: choose %s, or none and nametag in the image", source, sourceInfra)
	case c.hasNametag(name.Image):
		name.Name, name.From = "the server's own", "nametag in the image "+name.Image
		c.arguments(o, spec, p, known && v < documentSince)
	default:
		name.Name, name.From = "the server's own if the metadata is there in time, else one that Talos invents", "a race"
		image := "the image is not known"
		if name.Image != "" {
			image = "nothing says that the image " + name.Image + " has nametag in it (--nametag-image does)"
		}
		c.add(o, spec, ImageWithout, audit.Warning, c.insertSource(o, spec),
			"the name is left to the platform, and %s: the first boot is a race. Put nametag into the image, or let the bootstrap provider write the name", image)
	}
	c.result.Names = append(c.result.Names, name)

	if patches := at(spec, "configPatches"); patches != nil && len(patches.Content) > 0 && documents {
		severity, of := audit.Critical, "Talos "+version
		if !known {
			severity, of = audit.Warning, "no talosVersion, which is the provider's newest"
		}
		c.add(o, keyOf(spec, "configPatches"), JSONPatches, severity, c.strategic(o, spec),
			"configPatches (RFC 6902) are refused, for the machine configuration of %s has several documents: strategicPatches are not", of)
	}
	for _, d := range p.documents {
		if !documents {
			c.add(o, d.where, DocumentTooNew, audit.Critical, nil, "Talos %s does not know the document HostnameConfig: it has been there since 1.12", version)
		}
	}
	for _, a := range p.auto {
		if source != "" && documents {
			c.add(o, a.where, AutoConflicts, audit.Critical, nil,
				"auto: %s is merged into the HostnameConfig that hostname.source %s makes, and Talos refuses auto and hostname in one: leave one of them out", a.value, source)
		}
	}
	for _, a := range p.arguments {
		if strings.HasPrefix(a.value, "rdinit=") {
			c.add(o, a.where, Rdinit, audit.Critical, nil, "%s belongs into the imager's profile, beside the extension: from here it stays when an image without the helper comes, and that does not boot", a.value)
		}
	}
}

// arguments looks for nametag's own where an upgrade takes the arguments from the machine configuration: GRUB before 1.12.
func (c *Checker) arguments(o object, spec *yaml.Node, p patched, old bool) {
	if !old {
		return
	}
	if !slices.ContainsFunc(p.arguments, func(h hint) bool { return strings.HasPrefix(h.value, argument) }) {
		c.add(o, spec, ArgumentMissing, audit.Warning, nil,
			"before Talos 1.12, GRUB's entry after an upgrade has the arguments of machine.install.extraKernelArgs, and %s= is not among them: nametag would then not wait", argument)
	}
}

// patches reads everything that is written into the machine configuration.
func (c *Checker) patches(o object, spec *yaml.Node) patched {
	var p patched
	if list := at(spec, "strategicPatches"); list != nil {
		for _, n := range list.Content {
			p.strategic(n)
		}
	}
	if data := at(spec, "data"); data != nil {
		p.strategic(data)
	}
	if list := at(spec, "configPatches"); list != nil {
		for _, n := range list.Content {
			p.operation(object{o.file, n})
		}
	}
	return p
}

// strategic reads a patch that is a text of YAML documents.
func (p *patched) strategic(n *yaml.Node) {
	place := func(inner *yaml.Node) *yaml.Node {
		if n.Style == yaml.LiteralStyle {
			return &yaml.Node{Line: n.Line + inner.Line, Column: inner.Column}
		}
		return n
	}
	decoder := yaml.NewDecoder(strings.NewReader(n.Value))
	for {
		var doc yaml.Node
		if err := decoder.Decode(&doc); err != nil || len(doc.Content) == 0 {
			if errors.Is(err, io.EOF) || err != nil {
				return // what Talos cannot read either is Talos' to say
			}
			continue
		}
		root := doc.Content[0]
		if kind := at(root, "kind"); kind != nil && kind.Value == "HostnameConfig" {
			p.documents = append(p.documents, hint{"", place(kind)})
			if h := at(root, "hostname"); h != nil && h.Value != "" {
				p.hostname = append(p.hostname, hint{h.Value, place(h)})
			}
			if a := at(root, "auto"); a != nil {
				p.auto = append(p.auto, hint{a.Value, place(a)})
			}
			continue
		}
		if h := at(root, "machine", "network", "hostname"); h != nil && h.Value != "" {
			p.hostname = append(p.hostname, hint{h.Value, place(h)})
		}
		if args := at(root, "machine", "install", "extraKernelArgs"); args != nil {
			for _, a := range args.Content {
				p.arguments = append(p.arguments, hint{a.Value, place(a)})
			}
		}
	}
}

// operation reads one of RFC 6902.
func (p *patched) operation(op object) {
	if op.text("op") == "remove" || op.text("op") == "test" {
		return
	}
	value := at(op.root, "value")
	if value == nil {
		return
	}
	switch pointer := op.text("path"); {
	case pointer == "/machine/network/hostname":
		p.hostname = append(p.hostname, hint{value.Value, value})
	case pointer == "/machine/network":
		if h := at(value, "hostname"); h != nil && h.Value != "" {
			p.hostname = append(p.hostname, hint{h.Value, h})
		}
	case pointer == "/machine/install/extraKernelArgs":
		for _, a := range value.Content {
			p.arguments = append(p.arguments, hint{a.Value, a})
		}
	case strings.HasPrefix(pointer, "/machine/install/extraKernelArgs/"):
		p.arguments = append(p.arguments, hint{value.Value, value})
	case pointer == "/machine/install":
		if args := at(value, "extraKernelArgs"); args != nil {
			for _, a := range args.Content {
				p.arguments = append(p.arguments, hint{a.Value, a})
			}
		}
	}
}

// line is a line of a file, counted from 1, with its end.
func (c *Checker) line(file string, n int) string {
	lines := bytes.SplitAfter(c.files[file], []byte("\n"))
	if n < 1 || n > len(lines) {
		return ""
	}
	return string(lines[n-1])
}

// rewrite replaces a plain scalar in its line.
func (c *Checker) rewrite(o object, n *yaml.Node, value string) *Fix {
	line := c.line(o.file, n.Line)
	if n.Style != 0 || n.Column-1 > len(line) || !strings.HasPrefix(line[n.Column-1:], n.Value) {
		return nil
	}
	return &Fix{From: n.Line, Count: 1, Text: line[:n.Column-1] + value + line[n.Column-1+len(n.Value):]}
}

// insertSource gives a configuration the source that is the server's name.
func (c *Checker) insertSource(o object, spec *yaml.Node) *Fix {
	if spec.Style&yaml.FlowStyle != 0 || len(spec.Content) == 0 || at(spec, "hostname") != nil {
		return nil
	}
	first := spec.Content[0]
	indent := strings.Repeat(" ", first.Column-1)
	if strings.TrimSpace(c.line(o.file, first.Line)[:first.Column-1]) != "" {
		return nil // behind a dash: a list of objects as kubectl gives them may begin so
	}
	return &Fix{From: first.Line, Count: 0, Text: indent + "hostname:\n" + indent + "  source: " + sourceInfra + "\n"}
}

// strategic turns RFC 6902 patches that only add or replace in objects into one strategic patch. Where one does more, a person must.
func (c *Checker) strategic(o object, spec *yaml.Node) *Fix {
	list := at(spec, "configPatches")
	key := keyOf(spec, "configPatches")
	if list.Style&yaml.FlowStyle != 0 || at(spec, "strategicPatches") != nil || len(list.Content) == 0 {
		return nil
	}
	whole := map[string]any{}
	for _, n := range list.Content {
		op := object{o.file, n}
		if verb := op.text("op"); verb != "add" && verb != "replace" {
			return nil
		}
		var value any
		if v := at(n, "value"); v == nil || v.Decode(&value) != nil || !plainValue(value) {
			return nil
		}
		if !put(whole, op.text("path"), value) {
			return nil
		}
	}
	var text bytes.Buffer
	encoder := yaml.NewEncoder(&text)
	encoder.SetIndent(2)
	if encoder.Encode(whole) != nil || encoder.Close() != nil {
		return nil
	}
	indent := strings.Repeat(" ", key.Column-1)
	var out strings.Builder
	fmt.Fprintf(&out, "%sstrategicPatches:\n%s  - |\n", indent, indent)
	for line := range strings.Lines(text.String()) {
		out.WriteString(indent + "    " + line)
	}
	last := lastLine(list)
	return &Fix{From: key.Line, Count: last - key.Line + 1, Text: out.String()}
}

// plainValue: a list is appended to by a strategic patch and replaced by RFC 6902, so that is a person's to judge.
func plainValue(v any) bool {
	switch v := v.(type) {
	case map[string]any:
		for _, inner := range v {
			if !plainValue(inner) {
				return false
			}
		}
		return true
	case []any:
		return false
	}
	return true
}

// put writes a value at a pointer of object keys.
func put(into map[string]any, pointer string, value any) bool {
	keys := strings.Split(strings.TrimPrefix(pointer, "/"), "/")
	if pointer == "" || pointer == "/" {
		return false
	}
	for i, key := range keys {
		key = strings.NewReplacer("~1", "/", "~0", "~").Replace(key)
		if key == "-" || strings.Trim(key, "0123456789") == "" {
			return false
		}
		if i == len(keys)-1 {
			if _, there := into[key]; there {
				return false
			}
			into[key] = value
			return true
		}
		next, ok := into[key].(map[string]any)
		if !ok {
			if into[key] != nil {
				return false
			}
			next = map[string]any{}
			into[key] = next
		}
		into = next
	}
	return false
}

// lastLine is the last line that a node takes.
func lastLine(n *yaml.Node) int {
	last := n.Line
	if n.Kind == yaml.ScalarNode && (n.Style == yaml.LiteralStyle || n.Style == yaml.FoldedStyle) {
		last += strings.Count(strings.TrimSuffix(n.Value, "\n"), "\n") + 1
	}
	for _, inner := range n.Content {
		last = max(last, lastLine(inner))
	}
	return last
}

// Apply carries out the fixes of a file; those that overlap others are left out.
func Apply(text []byte, fixes []Fix) []byte {
	lines := strings.SplitAfter(string(text), "\n")
	slices.SortStableFunc(fixes, func(a, b Fix) int { return b.From - a.From })
	before := len(lines) + 1
	for _, f := range fixes {
		if f.From < 1 || f.From-1+f.Count > len(lines) || f.From+f.Count > before {
			continue
		}
		lines = slices.Concat(lines[:f.From-1], []string{f.Text}, lines[f.From-1+f.Count:])
		before = f.From
	}
	return []byte(strings.Join(lines, ""))
}

// Diff is a fix as a patch for patch(1) and git apply.
func Diff(file string, text []byte, f Fix) string {
	lines := strings.SplitAfter(string(text), "\n")
	const around = 2
	from, to := max(0, f.From-1-around), min(len(lines), f.From-1+f.Count+around)
	for to > 0 && lines[to-1] == "" {
		to--
	}
	added := strings.Count(f.Text, "\n")
	var out strings.Builder
	fmt.Fprintf(&out, "--- a/%s\n+++ b/%s\n@@ -%d,%d +%d,%d @@\n", file, file, from+1, to-from, from+1, to-from-f.Count+added)
	write := func(sign string, some []string) {
		for _, l := range some {
			if l != "" {
				out.WriteString(sign + strings.TrimSuffix(l, "\n") + "\n")
			}
		}
	}
	write(" ", lines[from:f.From-1])
	write("-", lines[f.From-1:f.From-1+f.Count])
	write("+", strings.SplitAfter(f.Text, "\n"))
	write(" ", lines[f.From-1+f.Count:to])
	return out.String()
}

// File is the text of a file that was taken in.
func (c *Checker) File(name string) []byte { return c.files[name] }

// SARIF is a result as code reviews take it (version 2.1.0).
func SARIF(r *Result, version string) ([]byte, error) {
	type message struct {
		Text string `json:"text"`
	}
	type region struct {
		StartLine   int `json:"startLine"`
		StartColumn int `json:"startColumn,omitempty"`
		EndLine     int `json:"endLine,omitempty"`
		EndColumn   int `json:"endColumn,omitempty"`
	}
	type artifact struct {
		URI string `json:"uri"`
	}
	type replacement struct {
		Deleted  region  `json:"deletedRegion"`
		Inserted message `json:"insertedContent"`
	}
	type change struct {
		Artifact     artifact      `json:"artifactLocation"`
		Replacements []replacement `json:"replacements"`
	}
	type fix struct {
		Description message  `json:"description"`
		Changes     []change `json:"artifactChanges"`
	}
	type physical struct {
		Artifact artifact `json:"artifactLocation"`
		Region   region   `json:"region"`
	}
	type location struct {
		Physical physical `json:"physicalLocation"`
	}
	type finding struct {
		RuleID    string     `json:"ruleId"`
		Level     string     `json:"level"`
		Message   message    `json:"message"`
		Locations []location `json:"locations"`
		Fixes     []fix      `json:"fixes,omitempty"`
	}
	type rule struct {
		ID    string  `json:"id"`
		Short message `json:"shortDescription"`
	}
	level := map[audit.Severity]string{audit.Info: "note", audit.Warning: "warning", audit.Critical: "error"}
	rules := []rule{}
	for _, known := range Rules() {
		rules = append(rules, rule{known.ID, message{known.Meaning}})
	}
	results := []finding{}
	for _, f := range r.Findings {
		out := finding{
			RuleID: f.Rule, Level: level[f.Severity], Message: message{f.Object + ": " + f.Message},
			Locations: []location{{physical{artifact{f.File}, region{StartLine: max(f.Line, 1), StartColumn: f.Column}}}},
		}
		if f.Fix != nil {
			// A region of whole lines ends at the start of the line behind it.
			deleted := region{StartLine: f.Fix.From, StartColumn: 1, EndLine: f.Fix.From + f.Fix.Count, EndColumn: 1}
			out.Fixes = []fix{{message{"as proposed"}, []change{{artifact{f.File}, []replacement{{deleted, message{f.Fix.Text}}}}}}}
		}
		results = append(results, out)
	}
	return json.MarshalIndent(map[string]any{
		"$schema": "https://json.schemastore.org/sarif-2.1.0.json", "version": "2.1.0",
		"runs": []any{map[string]any{
			"tool":    map[string]any{"driver": map[string]any{"name": "nametagctl capi check", "version": version, "rules": rules}},
			"results": results,
		}},
	}, "", "  ")
}
