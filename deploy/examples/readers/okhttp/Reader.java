import java.io.IOException;
import java.util.HashMap;
import java.util.Map;
import java.util.Set;
import okhttp3.OkHttpClient;
import okhttp3.Request;
import okhttp3.Response;
import okio.BufferedSource;

/** Print an execution's events, over as many connections as it takes. pom.xml says how to run it. */
public class Reader {
    private static final Set<String> TERMINAL = Set.of("execution:complete", "execution:error", "execution:cancelled");
    private final OkHttpClient client = new OkHttpClient(); // which takes silence of ten seconds for a lost connection
    private String cursor = "";
    private long retry = 2000;

    /** One connection: whether the stream is over. An IOException is one that another try may mend. */
    private boolean read(String url, String token) throws IOException {
        Request request = new Request.Builder().url(url).header("Authorization", "Bearer " + token)
            .header("Accept", "text/event-stream").header("Last-Event-ID", cursor).build();
        try (Response response = client.newCall(request).execute()) {
            int status = response.code();
            if (status == 204) return true;
            if (status == 429 || status >= 500) return false;
            if (status >= 400) throw new IllegalStateException("status " + status);
            BufferedSource lines = response.body().source();
            Map<String, String> block = new HashMap<>();
            for (String line; (line = lines.readUtf8Line()) != null; ) {
                int colon = line.indexOf(": ");
                if (colon > 0) block.put(line.substring(0, colon), line.substring(colon + 2));
                if (!line.isEmpty()) continue;
                String event = block.getOrDefault("event", ""), data = block.get("data");
                cursor = block.getOrDefault("id", cursor);
                retry = Long.parseLong(block.getOrDefault("retry", "" + retry));
                if (data != null && !event.startsWith("stream:")) System.out.println(cursor + " " + data);
                boolean isOver = event.equals("stream:end") && data.contains("\"reason\":\"finished\"");
                if (isOver || TERMINAL.contains(event)) return true;
                block.clear();
            }
            return false; // ended for now: it goes on where it was
        }
    }

    public static void main(String[] arguments) throws InterruptedException {
        Reader reader = new Reader();
        for (;; Thread.sleep(reader.retry)) {
            try {
                if (reader.read(arguments[0], arguments[1])) System.exit(0);
            } catch (IOException lost) { // or silent for ten seconds
            }
        }
    }
}
