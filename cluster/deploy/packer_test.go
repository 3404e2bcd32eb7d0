package deploy

import (
	"slices"
	"testing"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclparse"
	"github.com/hashicorp/hcl/v2/hclsyntax"
)

// uses are the things that the expressions below a block name: var.image, local.server_type.
func uses(body *hclsyntax.Body) []string {
	var all []string
	for _, a := range body.Attributes {
		for _, v := range a.Expr.Variables() {
			if len(v) < 2 {
				continue // a type: string
			}
			if step, ok := v[1].(hcl.TraverseAttr); ok {
				all = append(all, v.RootName()+"."+step.Name)
			}
		}
	}
	for _, b := range body.Blocks {
		all = append(all, uses(b.Body)...)
	}
	return all
}

// blocks are those of a type below a body.
func blocks(body *hclsyntax.Body, kind string) hclsyntax.Blocks {
	return slices.DeleteFunc(slices.Clone(body.Blocks), func(b *hclsyntax.Block) bool { return b.Type != kind })
}

// text is a string that an attribute has without anything around it, "" where it is no such one.
func text(body *hclsyntax.Body, name string) string {
	a := body.Attributes[name]
	if a == nil {
		return ""
	}
	v, problems := a.Expr.Value(nil)
	if problems.HasErrors() || v.Type().FriendlyName() != "string" {
		return ""
	}
	return v.AsString()
}

// The file for Packer is in the form that Packer reads, and all that it names is there.
func TestThePackerFileIsWhole(t *testing.T) {
	file, problems := hclparse.NewParser().ParseHCLFile("../../examples/cluster-api/snapshot.pkr.hcl")
	if problems.HasErrors() {
		t.Fatal(problems)
	}
	body := file.Body.(*hclsyntax.Body)
	known := map[string]bool{}
	for _, v := range blocks(body, "variable") {
		known["var."+v.Labels[0]] = true
	}
	for _, l := range blocks(body, "locals") {
		for name := range l.Body.Attributes {
			known["local."+name] = true
		}
	}
	used := uses(body)
	for _, name := range used {
		if !known[name] {
			t.Errorf("%s is used and not there", name)
		}
	}
	for name := range known {
		if !slices.Contains(used, name) {
			t.Errorf("%s is there and not used", name)
		}
	}
	sources := blocks(body, "source")
	if len(sources) != 1 || !slices.Equal(sources[0].Labels, []string{"hcloud", "talos"}) {
		t.Fatalf("the sources are %v", sources)
	}
	// What makes it safe: it writes the disk in the rescue system, and the label is what imageName looks for.
	if rescue := text(sources[0].Body, "rescue"); rescue != "linux64" {
		t.Errorf("rescue is %q", rescue)
	}
	labels := sources[0].Body.Attributes["snapshot_labels"].Expr.(*hclsyntax.ObjectConsExpr)
	i := slices.IndexFunc(labels.Items, func(item hclsyntax.ObjectConsItem) bool {
		key, problems := item.KeyExpr.Value(nil)
		return !problems.HasErrors() && key.AsString() == "caph-image-name"
	})
	if i < 0 || len(labels.Items[i].ValueExpr.Variables()) != 1 {
		t.Error("the snapshot has no label caph-image-name")
	}
	builds := blocks(body, "build")
	if len(builds) != 1 || len(blocks(builds[0].Body, "provisioner")) != 2 {
		t.Fatalf("%v", builds)
	}
	named, problems := builds[0].Body.Attributes["sources"].Expr.Value(nil)
	if problems.HasErrors() || named.LengthInt() != 1 || named.AsValueSlice()[0].AsString() != "source.hcloud.talos" {
		t.Errorf("it builds %#v", named)
	}
}
