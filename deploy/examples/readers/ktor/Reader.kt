import io.ktor.client.HttpClient
import io.ktor.client.engine.cio.CIO
import io.ktor.client.plugins.HttpTimeout
import io.ktor.client.request.header
import io.ktor.client.request.prepareGet
import io.ktor.client.statement.bodyAsChannel
import io.ktor.utils.io.readLine
import kotlinx.coroutines.delay
import kotlinx.coroutines.runBlocking
import java.io.IOException

val TERMINAL = setOf("execution:complete", "execution:error", "execution:cancelled")

/** Print an execution's events, over as many connections as it takes. pom.xml says how to run it. */
class Reader(private val url: String, private val token: String) {
    private val client = HttpClient(CIO) {
        install(HttpTimeout) { requestTimeoutMillis = Long.MAX_VALUE; socketTimeoutMillis = 10_000 }
    }
    private var cursor = ""
    var retry = 2000L

    /** One connection: whether the stream is over. An IOException is one that another try may mend. */
    suspend fun read(): Boolean = client.prepareGet(url) {
        header("Authorization", "Bearer $token")
        header("Accept", "text/event-stream")
        header("Last-Event-ID", cursor)
    }.execute { response ->
        val status = response.status.value
        if (status == 204) return@execute true
        if (status == 429 || status >= 500) return@execute false
        check(status < 400) { "status $status" }
        val lines = response.bodyAsChannel()
        val block = mutableMapOf<String, String>()
        while (true) {
            val line = lines.readLine() ?: return@execute false // ended for now: it goes on where it was
            if (line.isNotEmpty()) {
                block[line.substringBefore(": ")] = line.substringAfter(": ")
                continue
            }
            val event = block["event"] ?: ""
            val data = block["data"]
            cursor = block["id"] ?: cursor
            retry = block["retry"]?.toLong() ?: retry
            if (data != null && !event.startsWith("stream:")) println("$cursor $data")
            val isOver = event == "stream:end" && "\"reason\":\"finished\"" in data!!
            if (isOver || event in TERMINAL) return@execute true
            block.clear()
        }
        @Suppress("UNREACHABLE_CODE") false
    }
}

fun main(arguments: Array<String>) = runBlocking {
    val reader = Reader(arguments[0], arguments[1])
    while (true) {
        try {
            if (reader.read()) break
        } catch (lost: IOException) { // or silent for ten seconds
        }
        delay(reader.retry)
    }
    System.exit(0)
}
