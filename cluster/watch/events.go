package watch

import (
	"context"
	"fmt"
	"strings"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/rest"

	"github.com/nametag-boot/nametag/cluster/audit"
)

// Events gives a function that makes an Event on the node of a finding that came or went.
func Events(config *rest.Config) (func(context.Context, audit.Finding, bool) error, error) {
	client, err := dynamic.NewForConfig(config)
	if err != nil {
		return nil, err
	}
	events := client.Resource(schema.GroupVersionResource{Version: "v1", Resource: "events"}).Namespace("default") // where those of nodes are
	return func(ctx context.Context, f audit.Finding, came bool) error {
		ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
		defer cancel()
		kind, message := "Warning", f.Message
		if !came {
			kind, message = "Normal", fmt.Sprintf("no longer: %s", f.Message)
		}
		now := time.Now().UTC().Format(time.RFC3339)
		_, err := events.Create(ctx, &unstructured.Unstructured{Object: map[string]any{
			"apiVersion": "v1", "kind": "Event",
			"metadata":       map[string]any{"name": fmt.Sprintf("%s.%x", f.Node, time.Now().UnixNano()), "namespace": "default"},
			"involvedObject": map[string]any{"kind": "Node", "name": f.Node, "uid": f.Node, "apiVersion": "v1"},
			"reason":         reason(f.ID), "message": cut(message, 1024), "type": kind, "count": int64(1),
			"firstTimestamp": now, "lastTimestamp": now, "source": map[string]any{"component": "nametag-audit"},
			"reportingComponent": "nametag-audit", "reportingInstance": "",
		}}, metav1.CreateOptions{})
		return err
	}, nil
}

// reason is an id as Events have it: member-name-differs is MemberNameDiffers.
func reason(id audit.ID) string {
	var b strings.Builder
	for word := range strings.SplitSeq(string(id), "-") {
		b.WriteString(strings.ToUpper(word[:1]) + word[1:])
	}
	return b.String()
}

// cut shortens to what an Event may have.
func cut(text string, most int) string {
	if len(text) <= most {
		return text
	}
	return text[:most-3] + "..."
}
