package command

import (
	"encoding/json"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/santhosh-tekuri/jsonschema/v6"
	"sigs.k8s.io/yaml"

	"github.com/nametag-boot/nametag/cluster/audit"
	"github.com/nametag-boot/nametag/cluster/capi"
)

// against is the schema that the command itself prints.
func against(t *testing.T, which string) *jsonschema.Schema {
	t.Helper()
	status, out, stderr := (&user{t: t}).runs("schema", which)
	if status != exitAgree {
		t.Fatal(stderr)
	}
	document, err := jsonschema.UnmarshalJSON(strings.NewReader(out))
	if err != nil {
		t.Fatal(err)
	}
	compiler := jsonschema.NewCompiler()
	compiler.AssertFormat()
	if err := compiler.AddResource("schema.json", document); err != nil {
		t.Fatal(err)
	}
	schema, err := compiler.Compile("schema.json")
	if err != nil {
		t.Fatal(err)
	}
	return schema
}

// conforms holds an output against its schema. Every audit of the tests goes through here.
func conforms(t *testing.T, which, output string) {
	t.Helper()
	value, err := jsonschema.UnmarshalJSON(strings.NewReader(output))
	if err != nil {
		t.Fatalf("%v: %s", err, output)
	}
	if err := against(t, which).Validate(value); err != nil {
		t.Errorf("%v\n%s", err, output)
	}
}

// filled is a value in which nothing is left out: one of everything.
func filled(v reflect.Value) {
	switch v.Kind() { //nolint:exhaustive // what the results are made of
	case reflect.Struct:
		if v.Type() == reflect.TypeFor[time.Time]() {
			v.Set(reflect.ValueOf(time.Unix(1700000000, 0).UTC()))
			return
		}
		for i := range v.NumField() {
			filled(v.Field(i))
		}
	case reflect.Slice:
		v.Set(reflect.MakeSlice(v.Type(), 1, 1))
		filled(v.Index(0))
	case reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		filled(v.Elem())
	case reflect.String:
		text := map[reflect.Type]string{
			reflect.TypeFor[audit.Source](): "cloud", reflect.TypeFor[audit.Severity](): "info", reflect.TypeFor[audit.Verb](): "remove",
		}[v.Type()]
		if text == "" {
			text = "text"
		}
		v.SetString(text)
	case reflect.Bool:
		v.SetBool(true)
	case reflect.Uint64:
		v.SetUint(1<<64 - 1)
	default:
		v.SetInt(1)
	}
}

func TestTheSchemasKnowEveryField(t *testing.T) {
	var report audit.Report
	filled(reflect.ValueOf(&report).Elem())
	report.Schema, report.Sources[0].State, report.Machines[0].Role = audit.Schema, audit.SourceFailed, "worker"
	var result capi.Result
	filled(reflect.ValueOf(&result).Elem())
	result.Schema = capi.Schema
	for which, value := range map[string]any{"audit": report, "capi": result} {
		b, err := json.Marshal(value)
		if err != nil {
			t.Fatal(err)
		}
		conforms(t, which, string(b))
		// And no other: a field that the schema does not know is found here.
		another, err := jsonschema.UnmarshalJSON(strings.NewReader(strings.Replace(string(b), "{", `{"another":true,`, 1)))
		if err != nil {
			t.Fatal(err)
		}
		if against(t, which).Validate(another) == nil {
			t.Errorf("%s: any field passes", which)
		}
	}
}

func TestYAMLIsOfTheSameForm(t *testing.T) {
	u := aUser(t)
	_, args := u.theSeed(47, false)
	status, out, stderr := u.runs(append(args, "-o", "yaml", "--grace", "1ns")...)
	if status != exitFindings {
		t.Fatalf("%d: %s", status, stderr)
	}
	asJSON, err := yaml.YAMLToJSON([]byte(out))
	if err != nil {
		t.Fatal(err)
	}
	conforms(t, "audit", string(asJSON))
}
